"""Run the benchmarks:  python benchmarks/run.py [names…] [--quick] [--json out.json]

Prints a table of ratios; exits with 1 if a target was missed.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from timing import Row

BENCHMARKS = (
    "kernel",
    "orthant",
    "expectations",
    "trajectory",
    "sde",
    "fluctuations",
    "sweep",
    "ensemble",
    "chain",
    "network",
    "linear_networks",
    "conservation",
    "latency",
)
"""Each is a file here with a function ``measure(quick)`` that returns rows. A new one is a file, and a name here."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Ratios against named alternatives, measured in one run.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes: a look, not a measurement")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rows: dict[str, list[Row]] = {}
    for name in [n for n in BENCHMARKS if n in options.names or not options.names]:
        started = time.perf_counter()
        rows[name] = importlib.import_module(name).measure(options.quick)
        print(f"{name} ({time.perf_counter() - started:.0f} s)")
        print("\n".join(table(rows[name])) + "\n", flush=True)
    if options.json:
        report = {"machine": machine(), "rows": {name: [plain(r) for r in found] for name, found in rows.items()}}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    missed = [row.name for found in rows.values() for row in found if row.met is not None and not row.met]
    print(f"missed: {'; '.join(missed)}" if missed else "every target met")
    return bool(missed)


def table(rows: list[Row]) -> list[str]:
    """Return the rows as lines of text, in columns."""
    cells = [("", "measured", "ratio", "against", "target", "")]
    for r in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[r.met]
        cells.append((r.name, f"{r.measured:.3g} {r.unit}", f"{r.ratio:.3g}×", r.against, r.target, verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def plain(row: Row) -> dict[str, str | float | bool | None]:
    """Return a row in types that JSON takes."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in asdict(row).items()}


def machine() -> dict[str, str | int | None]:
    """What the figures depend on, besides what is measured."""
    packages = {name: version(name) for name in ("effdyn", "numpy", "scipy", "numba", "sympy")}
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        **packages,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:  # generated files of this run only: nothing is left behind
        os.environ.setdefault("EFFDYN_CACHE_DIR", cache)
        sys.exit(main())
