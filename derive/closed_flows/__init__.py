"""Closed forms of flows: detectors that recognise equations of motion, and verify what they return.

:func:`.find.find_closed_form` tries an ordered table of detectors, one family of equations a file. Knows SymPy
expressions only: nothing of models, nor of where equations come from.
"""

from .find import find_closed_form
from .flow import Condition
from .results import ClosedForm, NotFound
from .verify import Verification

__all__ = ["ClosedForm", "Condition", "NotFound", "Verification", "find_closed_form"]
