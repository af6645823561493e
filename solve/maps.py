"""Maps: the exact recursion, iterated step by step in compiled code, saved at given times."""

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from effdyn.derive import Dynamics, ModelError

from .errors import Diverged
from .given import step_length
from .integrators.dop853 import OPTIONS, _call
from .kernels.kept import kept
from .kernels.kernel import kernel
from .kernels.layout import Inputs, pack, parameter_vector, read_inputs, unpack
from .results import parameters_json, to_dataset
from .stopping import give_way

if TYPE_CHECKING:
    import xarray as xr


def _iterate(
    address: int,
    start: float,
    length: float,
    done: int,
    y: np.ndarray,
    change: np.ndarray,
    par: np.ndarray,
    work: np.ndarray,
    steps: int,
) -> int:
    """Make ``steps`` steps; return how many were made before one led to what is not finite; ``y`` is the state then.

    ``done`` steps of ``length`` have been made since the time ``start``.
    """
    for step in range(steps):
        _call(address, start + (done + step) * length, y, change, par, work)
        for i in range(y.size):
            change[i] += y[i]
            if not np.isfinite(change[i]):
                return step
        for i in range(y.size):
            y[i] = change[i]
    return steps


@lru_cache(maxsize=1)
def compiled_iterate() -> Any:
    """Return the compiled loop, from Numba's cache where it is."""
    array = types.Array(types.float64, 1, "C")
    options = {**OPTIONS, "fastmath": False}  # which would remove the test for finite numbers
    signature = types.intp(types.intp, types.float64, types.float64, types.intp, array, array, array, array, types.intp)
    return kept(njit, _iterate, signature, **options)


CHUNK = 4096
"""Steps between looks at the keyboard."""


def iterate_map(
    dynamics: Dynamics,
    t_span: tuple[float, float],
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    times: np.ndarray | None,
    tick: Callable[[float], object] | None,
) -> "xr.Dataset":
    """Return the states of a Dynamics of kind ``"map"`` after whole steps, those nearest to ``times`` on its clock.

    101 times by default, or every step if there are fewer. Nothing is approximated: the only error is rounding. Cost:
    one evaluation of the right-hand side a step.

    Raises
    ------
    Diverged
        When a state is no longer finite.
    """
    inputs = read_inputs(dynamics, y0, params)
    step = step_length(dynamics, inputs)
    if t_span[1] < t_span[0]:
        raise ModelError("t_span", t_span, "(from, to) with from before to: a map has no way back")
    asked = np.linspace(*t_span, 101) if times is None else times
    saves = np.unique(np.rint((asked - t_span[0]) / step).astype(np.int64))
    clock = (float(t_span[0]), step)
    ticking = None if tick is None else lambda n: tick(t_span[0] + n * step)
    steps, reached, why = _run(dynamics, inputs, clock, saves, ticking)
    t = t_span[0] + np.array(steps) * step
    y = np.array(reached).reshape(len(reached), -1)
    facts = {"status": why or "success", "n_steps": steps[-1] if steps else 0}
    solution = _dataset(dynamics, inputs, t, y, facts)
    if why == "diverged":
        state = {name: values[-1] for name, values in unpack(dynamics.states, y, inputs.sizes).items()}
        advice = "the states grow beyond all numbers: a smaller learning rate may keep them finite"
        raise Diverged(advice, float(t[-1]), state, solution)
    if why == "interrupted":
        last = t[-1] if len(t) else t_span[0]
        warnings.warn(f"interrupted at t = {last:.6g}; the solution so far is returned", RuntimeWarning, stacklevel=4)
    return solution


def _run(
    dynamics: Dynamics,
    inputs: Inputs,
    clock: tuple[float, float],
    saves: np.ndarray,
    tick: Callable[[int], object] | None,
) -> tuple[list[int], list[np.ndarray], str]:
    """Return the packed states after the saves that were reached, and why it stopped: empty if it did not.

    ``clock`` is the time at the start, and that which a step takes.

    Of a run that diverges, the last state that is finite comes last.
    """
    rhs, loop = kernel(dynamics), compiled_iterate()
    y = pack(dynamics.states, inputs.y0)
    par, change = parameter_vector(dynamics, inputs), np.empty_like(y)
    work = np.zeros(rhs.workspace_size(inputs.sizes))
    steps: list[int] = []
    reached: list[np.ndarray] = []
    done = 0
    try:
        for save in saves.tolist():
            while done < save:
                give_way()
                wanted = min(CHUNK, save - done)
                made = loop(rhs.address, *clock, done, y, change, par, work, wanted)
                done += made
                if made < wanted:
                    return [*steps, done], [*reached, y.copy()], "diverged"
            steps.append(save)
            reached.append(y.copy())
            if tick is not None:
                tick(save)
    except KeyboardInterrupt:
        return steps, reached, "interrupted"
    return steps, reached, ""


def _dataset(dynamics: Dynamics, inputs: Inputs, t: np.ndarray, y: np.ndarray, facts: dict[str, Any]) -> "xr.Dataset":
    from .integrate import observe

    states = unpack(dynamics.states, y, inputs.sizes)
    attrs = {"y0": parameters_json(inputs.y0), "method": "map", **facts}
    return to_dataset(dynamics, t, states, observe(dynamics, inputs, t, y), inputs.params, attrs)
