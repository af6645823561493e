"""Source text that an exported NumPy module needs besides its own equations: special functions and numerical rules.

It is effdyn's own source, so that the module computes what effdyn computes, and needs nothing of it.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..gaussian.special_sources import SOURCES, numpy_source
from ..numerical import rules, split
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
_SPLIT = (
    *("bundle_rule", "piece_rule", "lattice_rule", "_with_moments", "_nearest_points", "_sobol_rule", "_frozen"),
    *("split_nodes", "_far", "_stretch", "_directions", "_turned", "_pieces", "_first_of_each", "_roots"),
    *("_crossings", "_newton"),
)
_CONSTANTS = {"line": ("HALF_LINE",), "joint": ("LATTICE", "SPLIT", "ROUGH", "SOBOL")}
_CONSTANTS["split"] = ("LATTICE", "LINES", "PLANES", "PIECE", "MAP", "CELLS", "STEPS", "RIDGE", "SOFT", "SPARE")


def special_functions(code: str) -> str:
    """Return the definitions of the special functions that code calls."""
    called = [name for name in SOURCES if f"{name}(" in code]
    source = numpy_source(called).rstrip("\n") if called else ""
    own = SIGN1_GIVEN1.rstrip("\n") if "sign1_given1(" in code else ""
    return "\n\n\n".join(part for part in (source, own) if part)


def numerical_rules(*, line: bool, joint: bool, split: bool = False) -> str:
    """Return the definitions of the rule over one field, and of those over all fields, between kinks or not."""
    wanted = {"line": (line, _LINE), "joint": (joint, _JOINT), "split": (split, _SPLIT)}
    kinds = [kind for kind, (asked, _) in wanted.items() if asked]
    if not kinds:
        return ""
    names = dict.fromkeys(name for kind in kinds for name in _CONSTANTS[kind])
    constants = [f"{name} = {_member(name)!r}" for name in names]
    functions = dict.fromkeys(name for kind in kinds for name in wanted[kind][1])
    parts = ["\n".join(constants), *(_source(_member(name)) for name in functions)]
    return "\n\n\n".join([*parts, _source(cholesky)] if joint or split else parts)


def _member(name: str) -> Any:
    """Return a constant or a function of the modules with rules."""
    return getattr(rules, name) if hasattr(rules, name) else getattr(split, name)


def _source(function: Callable[..., object]) -> str:
    """Return a function's source without types and tests, which a reader of the module has no use for."""
    lines = inspect.getsource(function).rstrip("\n").splitlines()
    return "\n".join(_without_examples(_without_types(lines)))


_ANNOTATION = re.compile(r'(\w+): (?:"(?:Callable|tuple)\[[^"]*"|Sequence\[int\])|(?<=\)) -> "tuple[^"]*"')


def _without_types(lines: Iterable[str]) -> list[str]:
    lines = [_ANNOTATION.sub(lambda found: found[1] or "", line) for line in lines]
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
