"""What finite differences tell of a user's function: whether a declared derivative is one, and whether it has kinks."""

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
