"""Which simulator trains which model: a table by the model's type, so that a new model's simulator is a new file.

Knows nothing of models nor of how they are simulated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from effdyn.derive.errors import Described, ModelError

if TYPE_CHECKING:
    import xarray as xr

Simulator = TypeVar("Simulator", bound=Callable[..., "xr.Dataset"])

SIMULATORS: dict[type, Callable[..., xr.Dataset]] = {}
"""By the type of the model: what ``validate.simulate`` calls with the arguments that it was given."""


def simulates(model: type) -> Callable[[Simulator], Simulator]:
    """Enter the decorated function as the simulator of a type of model.

    Examples
    --------
    >>> class Coin:
    ...     pass
    >>> @simulates(Coin)
    ... def toss(model, runs=3):
    ...     return runs
    >>> simulator_of(Coin())(Coin())
    3
    >>> del SIMULATORS[Coin]
    """

    def enter(simulator: Simulator) -> Simulator:
        SIMULATORS[model] = simulator
        return simulator

    return enter


def simulator_of(model: Any) -> Callable[..., xr.Dataset]:
    """Return what simulates a model: the entry of its type, or of the nearest type that it inherits from.

    Raises
    ------
    ModelError
        If there is none.
    """
    for kind in type(model).__mro__:
        if kind in SIMULATORS:
            return SIMULATORS[kind]
    known = ", ".join(sorted(kind.__name__ for kind in SIMULATORS))
    raise ModelError("model", Described(f"a {type(model).__name__}"), f"a model that has a simulator: {known}")


def by_model(simulate: Callable[..., xr.Dataset]) -> Callable[..., xr.Dataset]:
    """Return a function with the name and the documentation of ``simulate`` that calls the simulator of its model."""

    @functools.wraps(simulate)
    def dispatch(*args: Any, **kwargs: Any) -> xr.Dataset:
        model = args[0] if args else kwargs.get("model")
        return simulator_of(model)(*args, **kwargs)

    return dispatch
