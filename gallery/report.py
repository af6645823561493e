"""How an entry of the gallery ends: verdicts printed and kept, the article typeset; and the sheets of its figures."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdyn.validate import Verdict, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def report(verdicts: Mapping[str, Verdict], out: Path, stem: str, say: Callable[[str], Any]) -> bool:
    """Print and keep the verdicts, typeset the article where LaTeX is installed; return whether all passed."""
    text = "\n\n".join(f"{name}\n{verdict}" for name, verdict in verdicts.items())
    (out / "verdict.txt").write_text(text + "\n", encoding="utf-8")
    (out / "verdict.json").write_text(
        json.dumps({name: v.to_dict() for name, v in verdicts.items()}, indent=1) + "\n", encoding="utf-8"
    )
    say("\n" + text + "\n")
    passed = all(v.passed for v in verdicts.values())
    say(f"{'PASS' if passed else 'NOT PASSED'}: {', '.join(f'{name} {v.status}' for name, v in verdicts.items())}")
    say(f"Equations, figures, data and verdicts are in {out}/{typeset(out, stem)}")
    return passed


def typeset(out: Path, stem: str) -> str:
    """Compile the article ``stem`` where LaTeX is installed; return what became of it, in brackets."""
    compiler = shutil.which("pdflatex")
    if compiler is None:
        return " (no pdflatex here: the article is there as LaTeX)"
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", f"{stem}.tex"]
    done = subprocess.run(command, cwd=out, stdout=subprocess.DEVNULL, check=False)
    return " (article typeset)" if done.returncode == 0 else f" (pdflatex failed: see {stem}.log)"


def sheet(columns: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its axes side by side, in the style of all figures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(4.6 * columns, 3.6), layout="constrained")
        axes = [figure.add_subplot(1, columns, n + 1) for n in range(columns)]
    return figure, axes
