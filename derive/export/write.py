"""A Dynamics as a file: a LaTeX article, a plain NumPy module, or JSON that reads back to an equal value."""

from collections.abc import Callable
from pathlib import Path

from ..dynamics import Dynamics
from ..errors import ModelError, nearest
from .article import article_latex
from .numpy_module import numpy_module
from .serialize import dynamics_to_json

WRITERS: dict[str, Callable[[Dynamics], str]] = {
    ".tex": article_latex,
    ".py": numpy_module,
    ".json": dynamics_to_json,
}
"""What writes a document, by the ending of its file. A new format is a function and an entry here."""


def to_text(dyn: Dynamics, suffix: str) -> str:
    """Return the document that a file with that ending holds.

    Parameters
    ----------
    dyn : Dynamics
    suffix : str
        ``.tex`` for an article, ``.py`` for a NumPy module that needs nothing of effdyn, ``.json`` for a document that
        :func:`effdyn.derive.dynamics_from_json` reads.

    Raises
    ------
    ModelError
        For another ending.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> derive.dynamics_from_json(to_text(dyn, ".json")) == dyn
    True
    """
    if suffix not in WRITERS:
        raise ModelError("suffix", suffix, f"a file's ending among {', '.join(WRITERS)}{nearest(suffix, WRITERS)}")
    return WRITERS[suffix](dyn)


def write(dyn: Dynamics, path: str | Path) -> Path:
    """Write a Dynamics in the format that the ending of ``path`` names, and return the path.

    Raises
    ------
    ModelError
        For an ending that :func:`to_text` does not know.
    """
    path = Path(path)
    path.write_text(to_text(dyn, path.suffix), encoding="utf-8")
    return path
