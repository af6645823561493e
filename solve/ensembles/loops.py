"""The compiled loops of ``solve.ensemble``: a thread takes member after member, from the counters of ``_next_member``.

``one_by_one.py`` hands each member to the integrator of single trajectories; ``lanes.py`` is DOP853 for sixteen members
at a time. A member's numbers come from its own initial state and parameters alone, by the same operations in every
lane: they are the same, bit for bit, in any order, in any company and on any number of threads.

Numba's cache does not notice a change in another file. So the text of a loop and of all that it calls is put into one
file named by its content; here is of which functions, and with which signature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numba
from numba import njit, types

from ..integrators import dop853
from ..integrators.dop853 import OPTIONS, Method, advance_signature
from ..integrators.other_methods import _HEADER, _OPTIONS, _constants, _text
from ..kernels.cache import load_generated
from ..kernels.kept import digest
from . import lanes, map_steps, one_by_one, outputs, sixteen

OUTPUTS = ("_store", "_take", "_next_member", "_observe", "_judge", "_write", "_blank", "_copy", "_is_below")
STEP = (
    "_call", "_is_finite", "_starting_step", "_take_step", "_error", "_prepare_interpolant", "_interpolate",
    "_reject", "_accept", "_lengthen",
)  # fmt: skip
IN_LANES = ("_begin", "_end", "_write_due", "_finite", "_move_on", "_in_lanes")
SIXTEEN = ("as_bits", "in_all", "in_sixteens", "lowest_bit", "where")
F8, I8, VECTOR, MATRIX = types.float64, types.int64, types.float64[::1], types.float64[:, ::1]
INTEGERS, TABLE, FLAG = types.int64[::1], types.int64[:, ::1], types.boolean
COMMON = (
    I8, I8, TABLE, I8, INTEGERS, INTEGERS, MATRIX, INTEGERS, MATRIX,
    VECTOR, VECTOR, VECTOR, MATRIX, VECTOR, VECTOR, TABLE,
    VECTOR, VECTOR, F8, VECTOR, F8, F8, I8, INTEGERS, INTEGERS, INTEGERS, TABLE, VECTOR, INTEGERS, VECTOR, TABLE,
)  # fmt: skip
"""The types of what both loops take: see ``Work`` in members.py, which says what the arrays are.

Addresses of the right-hand side and of the observables; the ranges of members, and which is this thread's; the flag to
stop, the members done (by this thread); initial states, where parameters vary and their values; scratch: parameters,
workspace, states and observables in slots, Gram matrices, parameters in slots, one state with its observables, what the
slots hold; t_span, t_eval, rtol, atol, first step, longest step, most steps; outputs: their addresses, lengths, and
places of their columns; places of the overlaps; bounds; status, last valid time and counts of each member."""


@functools.cache
def compiled_one_by_one(with_events: bool) -> Callable[..., None]:
    """``_one_by_one``, compiled by the first call on a machine, loaded from Numba's cache by the first in a process.

    The integrators come in by their addresses; their signature is part of this one's.
    """
    signature = advance_signature(with_events)
    advance = types.FunctionType(signature)
    own = (
        advance, advance, FLAG, I8, MATRIX, MATRIX, MATRIX, MATRIX, signature.args[7],
        VECTOR, VECTOR, MATRIX, VECTOR, VECTOR,
        signature.args[1], MATRIX, INTEGERS, INTEGERS, VECTOR, MATRIX, INTEGERS, MATRIX, INTEGERS,
    )  # fmt: skip
    source = _source(one_by_one, {dop853: ("_call",), outputs: OUTPUTS, one_by_one: ("_save", "_one_by_one")})
    return _compiled("members_one_by_one", source, "_one_by_one", own)


@functools.cache
def compiled_in_lanes() -> Callable[..., None]:
    """``_in_lanes``, compiled likewise."""
    own = (I8, I8, MATRIX, MATRIX, MATRIX, numba.from_dtype(lanes.LANE)[::1])
    source = _source(lanes, {dop853: STEP, outputs: OUTPUTS, lanes: IN_LANES})
    return _compiled("members_in_lanes", source, "_in_lanes", own)


@functools.cache
def _compiled_map(with_events: bool) -> Callable[..., int]:
    assert not with_events  # maps have none
    source = _source(map_steps, {dop853: ("_call", "_put", "_is_finite"), map_steps: ("_advance",)})
    python = load_generated("steps_map", source)._advance
    compiled: Callable[..., int] = njit(advance_signature(False), cache=True, **OPTIONS)(python)
    return compiled


MAP = Method("map", _compiled_map, lambda n: 1)


def _source(loop: ModuleType, functions: dict[ModuleType, tuple[str, ...]]) -> str:
    """Return the complete source of a loop: constants of all these modules, then their functions of these names."""
    constants = {name: text for module in functions for name, text in _constants(module).items()}
    texts = [_text(getattr(module, name)) for module, names in functions.items() for name in names]
    lines = "\n".join(f"{name} = {value}" for name, value in constants.items())
    return "\n\n".join([_HEADER.format(title=str(loop.__doc__).splitlines()[0]), _imports(), lines, _OPTIONS, *texts])


def _imports() -> str:
    """Return what the text of a loop takes from other files, and names their content: see the top of this file."""
    return (
        "from effdyn.solve.integrators import dop853_tableau as c\n"
        f"from effdyn.solve.ensembles.sixteen import {', '.join(SIXTEEN)}  # {digest(sixteen.lowest_bit)}"
    )


def _compiled(name: str, source: str, function: str, own: tuple[Any, ...]) -> Callable[..., None]:
    python = getattr(load_generated(name, source), function)
    compiled: Callable[..., None] = njit(types.void(*COMMON, *own), cache=True, **OPTIONS)(python)
    return compiled
