"""What tests of the order-1/d theory share: it and exact chains of the overlaps, of the same model and numbers."""

from collections.abc import Callable
from typing import Any

import pytest

from effdyn import solve, validate

TIMES = [0.0, 0.5, 1.0, 2.0]


@pytest.fixture(scope="session")
def solved() -> Callable[..., Any]:
    """The theory of a model; of one whose learning rate is ``faster`` times that given, though it claims that given."""

    def at(model: Any, y0: dict[str, Any], params: dict[str, Any], faster: float = 1.0) -> Any:
        theory = model.dynamics().fluctuations()
        right = solve.integrate(theory, (0, TIMES[-1]), y0, params, t_eval=TIMES)
        if faster == 1.0:
            return right
        wrong = solve.integrate(theory, (0, TIMES[-1]), y0, params | {"eta": faster * params["eta"]}, t_eval=TIMES)
        return wrong.assign_attrs(right.attrs)

    return at


@pytest.fixture(scope="session")
def sampled() -> Callable[..., Any]:
    """Exact chains of the overlaps of a model at finite d."""

    def at(model: Any, y0: dict[str, Any], params: dict[str, Any], d: Any, runs: int) -> Any:
        return validate.simulate(
            model, d=d, runs=runs, t_span=(0, TIMES[-1]), t_eval=TIMES, rng=3, engine="gram", align=False,
            progress=False, y0=y0, params=params,
        )  # fmt: skip

    return at
