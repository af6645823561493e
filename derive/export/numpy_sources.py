"""Source text that an exported NumPy module needs besides its own equations: special functions and numerical rules.

It is effdyn's own source, so that the module computes what effdyn computes, and needs nothing of it.
"""

import inspect
from collections.abc import Callable, Iterable

from ..gaussian.special_sources import SOURCES, numpy_source
from ..numerical import rules
from ..numerical.joint import cholesky

SIGN1_GIVEN1 = '''def sign1_given1(c11, c1p, cpp, m1, mp):
    """Return E[sign(h1) | h_p = 0] of fields with means; its variance given h_p is taken for at least 1e-15 c11."""
    slope = c1p / np.where(cpp == 0, 1, cpp)
    left = np.maximum(c11 - c1p * slope, 1e-15 * c11)
    return scipy.special.erf((m1 - mp * slope) / np.sqrt(2 * left + 1e-300))
'''
_LINE = ("line_rule", "_where", "_frozen")
_JOINT = (
    *("joint_rule", "lattice_rule", "_with_moments", "_nearest_points", "half_range_gauss", "_split_rule"),
    *("_sobol_rule", "_scaled", "_frozen"),
)
_CONSTANTS = {"line": ("HALF_LINE",), "joint": ("LATTICE", "SPLIT", "ROUGH", "SOBOL")}


def special_functions(code: str) -> str:
    """Return the definitions of the special functions that code calls."""
    called = [name for name in SOURCES if f"{name}(" in code]
    source = numpy_source(called).rstrip("\n") if called else ""
    own = SIGN1_GIVEN1.rstrip("\n") if "sign1_given1(" in code else ""
    return "\n\n\n".join(part for part in (source, own) if part)


def numerical_rules(*, line: bool, joint: bool) -> str:
    """Return the definitions of the rule over one field, and of that over all fields."""
    kinds = [kind for kind, wanted in (("line", line), ("joint", joint)) if wanted]
    if not kinds:
        return ""
    constants = [f"{name} = {getattr(rules, name)!r}" for kind in kinds for name in _CONSTANTS[kind]]
    functions = dict.fromkeys((*(_LINE if line else ()), *(_JOINT if joint else ())))
    parts = ["\n".join(constants), *(_source(getattr(rules, name)) for name in functions)]
    return "\n\n\n".join([*parts, _source(cholesky)] if joint else parts)


def _source(function: Callable[..., object]) -> str:
    """Return a function's source without types and tests, which a reader of the module has no use for."""
    lines = inspect.getsource(function).rstrip("\n").splitlines()
    return "\n".join(_without_examples(_without_types(lines)))


def _without_types(lines: Iterable[str]) -> list[str]:
    return [line.replace(' -> "Rule"', "").replace(' -> "numpy.ndarray"', "").replace('"numpy.ndarray"', "object")
            .replace('"numpy.random.Generator"', "object") for line in lines]  # fmt: skip


def _without_examples(lines: list[str]) -> list[str]:
    """Return the lines without the part of a docstring from its examples on, and without the import at the top."""
    out: list[str] = []
    skipping = False
    for line in lines:
        skipping = skipping or line.strip() == "Examples"
        if skipping and line.strip() == '"""':
            while not out[-1].strip():
                out.pop()
            skipping = False
        if not skipping and line.strip() != "import numpy as np":
            out.append(line)
    return out
