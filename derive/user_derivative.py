"""What probing tells of a user's function: whether a declared derivative is one, whether it has kinks, how it grows."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .errors import Described, ModelError
from .user_source import may_have_kinks, title, values_of

if TYPE_CHECKING:
    import numpy

POINTS = (0.0737, 0.2371, 0.4073, 0.6619, 0.9147, 1.1363, 1.4271, 1.7763, 2.2163, 2.7361, 3.3637, 4.1863, 5.3129)
"""Where they are compared, on both sides: within the reach of a Gaussian, off the places where kinks are put."""
STEPS = (2.0**-3, 2.0**-6, 2.0**-9, 2.0**-12)
"""Of the finite differences: long ones for the rounding, short ones that keep clear of kinks."""
EIGHTH, SIXTH = (4 / 5, -1 / 5, 4 / 105, -1 / 280), (3 / 4, -3 / 20, 1 / 60, 0.0)
"""Weights of f(x + kh) − f(x − kh), k = 1 … 4, in h f'(x): exact to order 8, and to order 6."""
TOLERANCE = 1e-5
"""Of the size of the slope, there and on average: above what functions that are themselves approximations, to 1e-7,
leave; below what rules for expectations over all fields resolve."""
ROUGHEST = 1e-3
"""How uncertain, likewise, a finite difference may be: otherwise any derivative would do for a noisy function."""
CELLS, REACH, GAUSS = 128, 8.0, 12
"""Between the points, integrals of the slope are compared with what the function grows by: over so many cells of
[−REACH, REACH], by Gauss–Legendre rules of so many nodes. What is narrower than their distance, 0.01, may be missed."""
INTEGRAL = 1e-4
"""Of the integral of the size of the slope: above what approximations to 1e-7 leave over a cell of 1/8."""
BISECTIONS, MANY = 12, 64
"""How often a cell that disagrees is bisected: jumps and kinks then stand alone in a part of 3e-5, unless there are
many such parts."""
FAR = (8.0, 13.0, 18.0, 23.0, 28.0)
"""Where the growth of a function is read off, as its largest value from there to 2 further on: zeros do not matter."""
GAUSSIAN = 1 / 80
"""Growth as of exp(x²/80) or faster is seen there, at any scale; that of exponentials and powers is no such."""


def check_chain(sources: Sequence[str], argument: str) -> None:
    """Raise a ModelError if a function is not finite, or if the next one is not its derivative.

    Examples
    --------
    >>> check_chain(["def g(x):\\n    return x**3", "def slope(x):\\n    return 2*x**2"], "activation")
    Traceback (most recent call last):
      ...
    effdyn.derive.errors.ModelError: activation = (g, slope) is not accepted: slope as the derivative of g; at x = ...
    """
    import numpy as np

    x = np.array([sign * p for p in POINTS for sign in (1, -1)])
    for source in sources:
        _check_finite(source, np.append(x, 0.0), argument)
        _check_growth(source, argument)
    for source, next_ in itertools.pairwise(sources):
        declared = values_of(next_)(x)
        found, error = _differences(values_of(source), x)
        size = np.maximum(abs(declared), abs(found))
        size = size + np.mean(size)
        wrong = abs(declared - found) > TOLERANCE * size + np.minimum(8 * error, ROUGHEST * size)
        if wrong.any():
            n = int(np.argmax(np.where(wrong, abs(declared - found) / size, 0.0)))
            g, slope = title(source), title(next_)
            facts = f"at x = {x[n]} it is {declared[n]:.10g}, while finite differences of {g} give {found[n]:.10g}"
            raise ModelError(argument, Described(f"({g}, {slope})"), f"{slope} as the derivative of {g}; {facts}")
        _check_integral(source, next_, argument)


def check_source(function: Callable[[float], float], source: str, argument: str) -> None:
    """Raise a ModelError if a function does not compute what its source text says, as after an edit of its file."""
    import numpy as np

    x = np.array([sign * p for p in POINTS for sign in (1, -1)])
    try:
        own = np.array([float(function(float(point))) for point in x])
    except Exception as error:  # whatever a user's function does with a number
        given = Described(f"the function {title(source)}, which fails with {type(error).__name__}: {error},")
        raise ModelError(argument, given, "a function of every real number") from error
    read = values_of(source)(x)
    bad = ~(abs(own - read) <= 1e-9 * (abs(own) + np.mean(abs(own)))) & ~(np.isnan(own) & np.isnan(read))
    if bad.any():
        n = int(np.argmax(bad))
        values = f"which at x = {x[n]} is {own[n]:.10g}, by its source text {read[n]:.10g},"
        given = Described(f"the function {title(source)}, {values}")
        accepted = (
            "a function whose file has not changed since it was imported, and to which math and np mean themselves"
        )
        raise ModelError(argument, given, accepted)


def has_kinks(source: str) -> bool:
    """Return whether a function is not smooth within the reach of a Gaussian, as its source text lets one suspect.

    An eighth difference over steps of 1/64 is below 1e-12 of functions that vary on the scale of 1, a jump of the
    third derivative above 1e-6. A kink that is weaker, or beyond |x| = 8, counts as none.

    Examples
    --------
    >>> has_kinks("def f(x):\\n    return x / (1 + abs(x))"), has_kinks("def f(x):\\n    return abs(x)**2 / 2")
    (True, False)
    """
    import numpy as np

    if not may_have_kinks(source):
        return False
    values = values_of(source)(np.linspace(-8.0, 8.0, 1025) + 0.00137)
    return not bool(abs(np.diff(values, 8)).max() <= 1e-8 * abs(values).max())


def _check_finite(source: str, x: "numpy.ndarray", argument: str) -> None:
    import numpy as np

    try:
        values = values_of(source)(x)
    except Exception as error:  # of a type that arithmetic does not take, as a variable that has no value yet
        given = Described(f"the function {title(source)}, which fails with {type(error).__name__}: {error},")
        raise ModelError(argument, given, "a function of every real number") from error
    if not np.isfinite(values).all():
        n = int(np.argmin(np.isfinite(values)))
        given = Described(f"the function {title(source)}, which is {values[n]} at x = {x[n]},")
        raise ModelError(argument, given, "a function that is finite at every real number")


def _check_growth(source: str, argument: str) -> None:
    """Raise a ModelError if a function overflows far out, or grows there like exp(c x²), at which averages diverge.

    Second differences of log|g| are constant for exp(c x²), at any scale, 0 for exponentials, negative for powers, and
    fall for what lies between. Averages of products of four exist for c < 1/8 at variances of 1, for none at all.
    """
    import numpy as np

    from .gaussian.admissible import SLOW

    values, offsets = values_of(source), np.linspace(0.0, 2.0, 9)
    for side in (1.0, -1.0):
        x = side * (np.array(FAR)[:, None] + offsets)
        g = values(x)
        if not np.isfinite(g).all():
            given = f"the function {title(source)}, which is {g[~np.isfinite(g)][0]} at x = {x[~np.isfinite(g)][0]},"
            raise ModelError(argument, Described(given), SLOW)
        size = np.log(np.maximum(abs(g).max(axis=1), 1e-300))
        far = np.array(FAR) + 2.0
        rates, least = (np.diff(size, 2), np.diff(size)), GAUSSIAN * far**2
        fast = (rates[0] >= np.diff(least, 2)).all() and (rates[1] >= np.diff(least)).all()
        if fast and rates[0][-1] >= 0.95 * rates[0][-2]:
            c = rates[0][-1] / np.diff(far**2, 2)[-1]
            given = f"the function {title(source)}, which grows like exp({c:.2g}*x**2) and has no Gaussian expectation,"
            raise ModelError(argument, Described(given), SLOW)


def _check_integral(source: str, slope: str, argument: str) -> None:
    """Raise a ModelError if the integral of a slope over some cell is not what the function grows by.

    A function may jump, as a teacher's: what it grows by within one part of 3e-5 is no matter.
    """
    import numpy as np

    edges = np.linspace(-REACH, REACH, CELLS + 1) + 0.00137  # off the places where kinks are put
    errors, sizes = _mismatch(source, slope, edges[:-1], edges[1:])
    middle = abs(edges[:-1]) <= 3.0
    tolerated = INTEGRAL * (sizes + np.mean(sizes[middle]))
    for n in np.argsort(-abs(errors) / np.maximum(tolerated, 1e-300)):
        if not abs(errors[n]) > tolerated[n]:
            return
        error = _refined(source, slope, (edges[n], edges[n + 1]), tolerated[n])
        if abs(error) > tolerated[n]:
            a, b = edges[n : n + 2]
            grown = float(np.diff(values_of(source)(edges[n : n + 2]))[0])
            facts = f"between x = {a:.6g} and {b:.6g} its integral is {grown - error:.10g}, while {title(source)} grows"
            facts = f"{title(slope)} as the derivative of {title(source)}; {facts} by {grown:.10g}"
            raise ModelError(argument, Described(f"({title(source)}, {title(slope)})"), facts)


def _mismatch(source: str, slope: str, a: "numpy.ndarray", b: "numpy.ndarray") -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return how much more a function grows than the integral of its slope, cell by cell, and that integral of |it|."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(GAUSS)
    declared, g = values_of(slope)((a + b)[:, None] / 2 + (b - a)[:, None] / 2 * nodes), values_of(source)
    return g(b) - g(a) - (b - a) / 2 * (declared @ weights), (b - a) / 2 * (abs(declared) @ weights)


def _refined(source: str, slope: str, cell: tuple[float, float], tolerated: float) -> float:
    """Return the mismatch of one cell with the parts bisected that cause it, but for jumps and kinks in the last."""
    import numpy as np

    a, b = np.array([cell[0]]), np.array([cell[1]])
    total = 0.0
    for _ in range(BISECTIONS):
        a, b = np.append(a, (a + b) / 2), np.append((a + b) / 2, b)
        errors, _sizes = _mismatch(source, slope, a, b)
        wrong = abs(errors) > tolerated * (b - a) / (cell[1] - cell[0])
        total += float(errors[~wrong].sum())
        a, b = a[wrong], b[wrong]
        if len(a) >= MANY:
            return total + float(errors[wrong].sum())
    return total


def _differences(
    values: "Callable[[numpy.ndarray], numpy.ndarray]", x: "numpy.ndarray"
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return derivatives by central differences of order 8 and their errors, at each point by the best of the steps."""
    import numpy as np

    found, errors = [], []
    for step in STEPS:
        sides = [(values(x + k * step), values(x - k * step)) for k in (1, 2, 3, 4)]
        eighth, sixth = (
            sum(w * (r - l) for w, (r, l) in zip(weights, sides, strict=True)) for weights in (EIGHTH, SIXTH)
        )
        largest = np.max([abs(side) for pair in sides for side in pair], axis=0)
        found.append(eighth / step)
        errors.append((abs(eighth - sixth) + 4 * 2.0**-52 * largest) / step)
    best = np.argmin(errors, axis=0)
    return np.array(found)[best, np.arange(len(x))], np.array(errors)[best, np.arange(len(x))]
