"""A verdict as one HTML page: what was compared, every number, figures, and what it takes to repeat it."""

from __future__ import annotations

import base64
import html
import io
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from .verdict import Verdict

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .2em .7em; text-align: right; }
th { border-bottom: 1px solid #999; } td:first-child, th:first-child { text-align: left; }
tr.wrong td { background: #fbe3e0; } pre { background: #f5f5f5; padding: .8em; overflow-x: auto; }
img { max-width: 100%; } .PASS { color: #1a7f37; } .FAIL { color: #b00000; } .UNDECIDED { color: #9a6700; }
"""
PACKAGES = ("effdyn", "numpy", "scipy", "xarray", "numba", "sympy", "matplotlib")
SHOWN = ("observable", "component", "t", "d", "theory", "mean", "standard_error", "deviation", "z", "tolerance", "n",
         "freedom", "counted", "passed")  # fmt: skip


def write_report(verdict: Verdict, path: Path) -> Path:
    """Write the page; no external resources, so that it can be sent and kept."""
    parts = [
        f"<h1>Verdict: <span class='{verdict.status}'>{verdict.status}</span></h1>",
        f"<p>{html.escape(verdict.reason)}</p>",
        f"<pre>{html.escape(str(verdict))}</pre>",
        "<h2>Figures</h2>",
        *(f"<img alt='theory and simulation' src='data:image/png;base64,{data}'>" for data in _figures(verdict)),
        "<h2>Observables</h2>",
        _table(verdict.summary, ("observable", *map(str, verdict.summary.data_vars))),
        *_joint(verdict),
        _folded("Means", verdict.table),
        "" if verdict.variances is None else _folded("Variances over runs", verdict.variances),
        "<h2>To repeat it</h2>",
        _code(verdict),
        *(_facts(side, facts) for side, facts in verdict.sources.items()),
        _facts("this page", _here(verdict)),
    ]
    title = f"{verdict.status}: {verdict.theory}"
    page = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
    page += f"<style>{STYLE}</style></head><body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    path.write_text(page, encoding="utf-8")
    return path


def _figures(verdict: Verdict) -> Iterable[str]:
    buffer = io.BytesIO()
    verdict.plot().savefig(buffer, format="png", dpi=130)
    yield base64.b64encode(buffer.getvalue()).decode()


def _joint(verdict: Verdict) -> list[str]:
    parts = []
    for title, rows in (("All means jointly", verdict.joint), ("Shifts of time", verdict.shifts)):
        if rows:
            facts = [asdict(row) for row in rows]
            parts += [f"<h2>{title}</h2>", _rows(list(facts[0]), [list(row.values()) for row in facts])]
    return parts


def _folded(title: str, table: xr.Dataset) -> str:
    columns = [name for name in SHOWN if name in table and table[name].dims in ((), ("comparison",))]
    count = table.sizes["comparison"]
    return f"<details><summary>{title}: all {count} comparisons</summary>{_table(table, columns)}</details>"


def _table(table: xr.Dataset, columns: Iterable[str]) -> str:
    columns = list(columns)
    (dim,) = {str(d) for name in columns for d in table[name].dims}
    values = [np.broadcast_to(table[name].values, table.sizes[dim]).tolist() for name in columns]
    wrong = [not passed for passed in table["passed"].values] if "passed" in table else [False] * table.sizes[dim]
    return _rows(columns, [list(row) for row in zip(*values, strict=True)], wrong)


def _rows(columns: list[str], rows: list[list[Any]], wrong: list[bool] | None = None) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(_text(cell))}</{tag}>" for cell in cells)

    marks = wrong or [False] * len(rows)
    body = [f"<tr{' class=wrong' * bad}>{line(row, 'td')}</tr>" for row, bad in zip(rows, marks, strict=True)]
    return f"<table><tr>{line(columns, 'th')}</tr>{''.join(body)}</table>"


def _text(cell: Any) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    return f"<h3>{html.escape(title)}</h3>{_rows(['', ''], [[key, value] for key, value in facts.items()])}"


def _here(verdict: Verdict) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "options": json.dumps(_options(verdict)),
    }


def _options(verdict: Verdict) -> dict[str, Any]:
    names = dict.fromkeys(verdict.table.observable.values.tolist())
    chosen = {name: getattr(verdict, name) for name in ("level", "bias", "resolution", "numerical")}
    return {"variables": list(names), **chosen}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _code(verdict: Verdict) -> str:
    code = to_repeat(verdict)
    return f"<pre>{html.escape(code)}</pre>" if code else "<p>Theory and simulation do not say how they were made.</p>"


def to_repeat(verdict: Verdict) -> str:
    """Return a program that makes the same verdict, or nothing if the attributes do not tell.

    The simulation is taken to start at t = 0.
    """
    theory, simulation = (verdict.sources.get(side, {}) for side in ("theory", "simulation"))
    needed = ("model", "y0", "d", "runs", "engine", "init", "align", "store", "seed", "clock", "parameters")
    stated = all(key in simulation for key in needed) and all(key in theory for key in ("limit", "parameters", "y0"))
    if not stated:
        return ""
    if not str(simulation["model"]).startswith("TeacherStudent("):
        return ""
    sizes, seed = json.loads(simulation["d"]), json.loads(simulation["seed"])
    align = simulation["align"] if simulation["align"] == "auto" else simulation["align"] == "True"
    times = np.unique(verdict.table.t.values).tolist()
    fluctuations = verdict.variances is not None
    dynamics = f"model.dynamics({theory['limit']!r}){'.fluctuations()' * fluctuations}"
    initial = f", initial={theory['initial']!r}" if "initial" in theory else f", rtol={theory.get('rtol', 1e-10)!r}"
    how = ", ".join(f"{key}={simulation[key]!r}" for key in ("engine", "init", "store", "clock")) + f", align={align!r}"
    options = ", ".join(f"{key}={value!r}" for key, value in _options(verdict).items())
    return f"""import json

import numpy as np

from effdyn import derive, solve, validate
from effdyn.derive import TeacherStudent

model = {simulation["model"]}
times = {times}
span = (0.0, times[-1])
y0 = json.loads({simulation["y0"]!r})
params = json.loads({simulation["parameters"]!r})
seed = np.random.SeedSequence({int(seed["entropy"])}, spawn_key={tuple(seed["spawn_key"])!r})
simulation = validate.simulate(
    model, d={(sizes if verdict.table["d"].ndim else sizes[0])!r}, runs={simulation["runs"]}, t_span=span,
    t_eval=times, y0=y0, params=params, rng=seed, {how},
)
theory = solve.integrate(
    {dynamics}, span, y0=json.loads({theory["y0"]!r}), params=json.loads({theory["parameters"]!r}),
    t_eval=simulation.t{initial},
)
verdict = validate.compare(
    theory, simulation, {options}
)
print(verdict)
"""
