"""Evidence room: Monte-Carlo simulation of the finite model, comparison with theory, verdicts and figures."""

if __name__ != "effdyn.validate":
    raise ImportError("this folder is the package effdyn.validate: pip install -e . and import that")

from . import data_laws, figures
from . import linear_network as _linear_network  # noqa: F401 — enters its simulator
from . import regression as _regression  # noqa: F401 — enters its simulator
from .assertion import assert_matches
from .audit.audit import audit
from .audit.result import Audit, Finding
from .comparable import NotComparable
from .compare import compare
from .escape_times import EscapeTimes, escape_times, passages
from .simulate import SimulationDiverged, simulate
from .verdict import Verdict

__all__ = [
    "Audit",
    "EscapeTimes",
    "Finding",
    "NotComparable",
    "SimulationDiverged",
    "Verdict",
    "assert_matches",
    "audit",
    "compare",
    "data_laws",
    "escape_times",
    "figures",
    "passages",
    "simulate",
]
