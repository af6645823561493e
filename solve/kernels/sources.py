"""All source texts that kernels may bring along, each after those that it requires."""

from collections.abc import Iterable

from effdyn.derive.gaussian import special
from effdyn.derive.user_function import named

from . import functions
from .conditional_sign import CONDITIONAL_REQUIREMENTS, CONDITIONAL_SOURCES
from .elementary import NODE_REQUIREMENTS, NODE_SOURCES
from .kinks import KINK_SOURCES
from .nodes import NODES_SOURCES

TEXTS: dict[str, str] = {**functions.SOURCES, **CONDITIONAL_SOURCES, **NODE_SOURCES, **KINK_SOURCES, **NODES_SOURCES}
"""Source text of each function, by name."""
REQUIREMENTS: dict[str, tuple[str, ...]] = {**functions.REQUIRES, **CONDITIONAL_REQUIREMENTS, **NODE_REQUIREMENTS}
"""The functions that a function calls."""
CALLABLE = frozenset(
    {"asin", "erfi", *CONDITIONAL_SOURCES, *(name for name in functions.SOURCES if hasattr(special, name))}
)
"""The functions that equations may call: what they need besides is no function of SymPy's. A user's come on top."""


def paste(names: Iterable[str]) -> str:
    """Return the source of functions and of all that they call, in an order in which they can be executed.

    Names that stand in no table are those of a user's functions.

    Raises
    ------
    NotYet
        If one is a derivative that the user did not declare.
    """
    done: dict[str, None] = {}

    def include(name: str) -> None:
        for required in REQUIREMENTS.get(name, ()):
            include(required)
        done.setdefault(name)

    for name in sorted(names):
        include(name)
    return "".join(TEXTS[name] if name in TEXTS else user_text(name) for name in done)


def user_text(name: str) -> str:
    """Return the source text of a user's function, to be compiled."""
    source = named(name).source()
    numpy = "\nimport numpy as np\n\n" if "np." in source else ""
    return f'{numpy}\n@njit(error_model="numpy", fastmath={{"contract", "nsz"}})\n{source}\n'
