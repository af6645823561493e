"""Whether an expression in Gaussian fields has an expectation: finite, real, and of size to be summed.

Probes, not proofs: along the axes, the fields and some random directions.
"""

from typing import TYPE_CHECKING

import sympy

from ..errors import Described, ModelError
from .lines import sign_change
from .problem import Problem

if TYPE_CHECKING:
    import numpy

REAL = "a real expression of every real value of the fields, which are Gaussian"
FINITE = "an expression that is finite almost everywhere: fields are Gaussian, so they come close to every value"
SLOW = (
    "an expression whose expectation exists: at this covariance it grows as fast as the Gaussian density of the fields "
    "falls off"
)
INTEGRABLE = (
    "an expression whose singularities are integrable: fields are Gaussian, so they come arbitrarily close to it"
)


def check_exists(problem: Problem) -> None:
    """Raise a ModelError if there is no finite, real expectation."""
    import numpy as np

    directions = directions_of(problem)
    near = np.concatenate([directions * r for r in (0.31, 0.97, 1.83, 3.1)])
    values = problem.at(near)
    if np.iscomplexobj(values) or np.isnan(values).any():
        _explain(problem, near[np.isnan(values)] if not np.iscomplexobj(values) else near[:1])
    _check_poles(problem, directions)
    sizes = [size_at(problem, directions, radius) for radius in (12.0, 20.0, 24.0)]
    if not all(np.isfinite(sizes)) or (sizes[2] > 0.3 * sizes[1] > 0.1 * sizes[0] and sizes[2] > 1e-100):
        raise ModelError("expr", Described(f"{problem.expr}"), SLOW)


def directions_of(problem: Problem) -> "numpy.ndarray":
    """Return unit vectors: both ways along the variables and the fields, and some at random."""
    import numpy as np

    some = np.random.default_rng(0).normal(size=(48, problem.dimension))
    ways = np.concatenate([np.eye(problem.dimension), problem.factor[(problem.factor != 0).any(axis=1)], some])
    ways /= np.linalg.norm(ways, axis=1)[:, None]
    return np.concatenate([ways, -ways])


def size_at(problem: Problem, directions: "numpy.ndarray", radius: float) -> float:
    """Return about how much |f| adds to its expectation at this distance from the origin."""
    import numpy as np

    return float(np.exp(-(radius**2) / 2) * radius**problem.dimension * np.abs(problem.at(radius * directions)).max())


def _explain(problem: Problem, where: "numpy.ndarray") -> None:
    point = problem.mean + where[0] @ problem.factor.T
    values = {f: sympy.Float(float(x)) for f, x in zip(problem.fields, point, strict=True)}
    place = ", ".join(f"{f} = {float(x):.3g}" for f, x in values.items())
    number = problem.expr.subs(values).evalf()
    if number.is_number and abs(sympy.im(number)) > 1e-9 * abs(number):
        raise ModelError("expr", Described(f"{problem.expr}, which is complex at {place},"), REAL)
    raise ModelError("expr", Described(f"{problem.expr}, which is {number} at {place},"), FINITE)


def _check_poles(problem: Problem, directions: "numpy.ndarray") -> None:
    """Raise a ModelError if |f| grows at least like 1/distance where a denominator changes sign.

    Next to such a place the integral of |f| diverges, though a symmetric rule would return a number.
    """
    import numpy as np

    grid, steps = np.linspace(-4.0, 4.1, 61), np.array([1e-4, 1e-7])
    for mark in problem.kinks:
        for d in directions[:: max(1, len(directions) // 12)]:

            def at(t: "numpy.ndarray", d: "numpy.ndarray" = d) -> "numpy.ndarray":
                return problem.mean + np.outer(t, d) @ problem.factor.T

            values = mark(at(grid))
            for n in np.flatnonzero(values[1:] * values[:-1] < 0)[:3]:
                root = sign_change(lambda t: mark(at(t)), grid[n : n + 1], grid[n + 1 : n + 2])  # noqa: B023  (called before the loop goes on)
                for side in (1, -1):
                    near = np.abs(problem.function(at(root + side * steps))) * steps
                    if near[1] > 0.5 * near[0] > 1e-12:
                        raise ModelError("expr", Described(f"{problem.expr}"), INTEGRABLE)
