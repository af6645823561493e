"""Gaussian expectations by plain numerical integration: the referee of closed forms, with which it shares no code.

Fields that coincide are merged first. The others are integrated one in the conditional law of those before, by
Gauss–Legendre panels that end at every kink; other rules give the error. Three and more that nearly depend on each
other (or five): the last by panels, the rest by randomised quasi-Monte-Carlo, whose scatter is the error. Knows nothing
of rules, nor of special functions.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational

from ..activation import X

Array = np.ndarray[Any, Any]
REACH = 9.0
"""Standard deviations on each side: what lies beyond is 1e-20 of the measure, times what the function grows by."""
NODES = 12
PANELS = 14
REPLICATES, POINTS = 16, 2**12
NESTED = {3: ((9, 10), (9, 8), (8, 10)), 4: ((3, 9), (3, 8), (4, 7))}
"""Panels and nodes of nested rules, by the number of fields, a million values each: the best, and two to tell its
error, since two alone may agree by accident."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A function in NumPy, the points where it or a derivative jumps, and the weights of its δ(x − t), by t."""

    call: Callable[[Array], Array]
    kinks: tuple[float, ...]
    deltas: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, f: sympy.Expr) -> "Plain":
        """Return a function of X without parameters."""
        if f.has(sympy.DiracDelta):
            return cls(np.zeros_like, (), _deltas(f))
        compiled = sympy.lambdify(X, f, ["scipy", "numpy"])
        return cls(lambda x: compiled(x) * np.ones_like(x), _switches(f))

    def times(self, other: "Plain", slope: float, bias: float) -> "Plain":
        """Return its product with ``other(slope x + bias)``."""
        if other.deltas and not self.deltas:
            inverse = Plain(lambda x: self.call((x - bias) / slope), tuple(slope * k + bias for k in self.kinks))
            return Plain(
                np.zeros_like,
                (),
                tuple(((t - bias) / slope, w / abs(slope) * float(inverse.call(np.array(t)))) for t, w in other.deltas),
            )
        if self.deltas and other.deltas:
            raise ValueError("the square of a δ has no expectation")
        if self.deltas:
            return Plain(
                np.zeros_like, (), tuple((t, w * float(other.call(np.array(slope * t + bias)))) for t, w in self.deltas)
            )
        kinks = (*self.kinks, *((k - bias) / slope for k in other.kinks))
        return Plain(lambda x: self.call(x) * other.call(slope * x + bias), kinks)


def integrate(functions: Sequence[sympy.Expr], C: Array, m: Array) -> tuple[float, float]:
    """Return E[Π f_a(h_a)] for h ~ N(m, C), and an estimate of its error.

    Parameters
    ----------
    functions : sequence of Expr
        Functions of X, without parameters.
    C : array, shape (n, n)
    m : array, shape (n,)

    Examples
    --------
    >>> value, error = integrate([sympy.Abs(X), sympy.Abs(X)], np.array([[2.0, 2.0], [2.0, 2.0]]), np.zeros(2))
    >>> abs(value - 2) < 1e-12, error < 1e-12
    (True, True)
    """
    plain, C, m = _merge_coincident([Plain.of(f) for f in functions], np.asarray(C, float), np.asarray(m, float))
    return _integrate(plain, C, m)


def _integrate(plain: list[Plain], C: Array, m: Array) -> tuple[float, float]:
    for a, f in enumerate(plain):
        if f.deltas:
            return _held(plain, C, m, a)
    if len(plain) == 0:
        return 1.0, 0.0
    if len(plain) == 1:
        return _line(plain[0], C, m)
    if len(plain) == 2:
        return _plane(plain, C, m)
    order = _closest_last(C)
    plain, C, m = [plain[a] for a in order], C[np.ix_(order, order)], m[order]
    independent = np.diag(_root(C))[:-1] ** 2 / np.diag(C)[:-1]
    return _nested(plain, C, m) if len(plain) in NESTED and independent.min() > 0.02 else _scattered(plain, C, m)


def _held(plain: list[Plain], C: Array, m: Array, a: int) -> tuple[float, float]:
    """Hold a field with δ at each of its points."""
    rest = [b for b in range(len(m)) if b != a]
    value = error = 0.0
    for t, weight in plain[a].deltas:
        density = np.exp(-((t - m[a]) ** 2) / (2 * C[a, a])) / np.sqrt(2 * np.pi * C[a, a])
        left = C[np.ix_(rest, rest)] - np.outer(C[rest, a], C[a, rest]) / C[a, a]
        part, doubt = _integrate([plain[b] for b in rest], left, m[rest] + C[rest, a] / C[a, a] * (t - m[a]))
        value += weight * density * part
        error += abs(weight) * density * doubt
    return value, error


def _merge_coincident(plain: list[Plain], C: Array, m: Array) -> tuple[list[Plain], Array, Array]:
    """Merge fields with correlation ±1, to 1e-14."""
    kept: list[int] = []
    merged: list[Plain] = []
    for b, f in enumerate(plain):
        for n, a in enumerate(kept):
            if C[a, a] * C[b, b] - C[a, b] ** 2 <= 1e-14 * C[a, a] * C[b, b]:
                slope = C[a, b] / C[a, a]
                merged[n] = merged[n].times(f, slope, m[b] - slope * m[a])
                break
        else:
            kept.append(b)
            merged.append(f)
    return merged, C[np.ix_(kept, kept)], m[kept]


def _panels(edges: Array, nodes: int = NODES) -> tuple[Array, Array]:
    """Return Gauss–Legendre nodes and weights between sorted edges along the last axis."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    low, high = edges[..., :-1, None], edges[..., 1:, None]
    half = (high - low) / 2
    shape = (*edges.shape[:-1], -1)
    return ((low + high) / 2 + half * x).reshape(shape), (half * w).reshape(shape)


def _edges(*special: float | Array, panels: int = PANELS) -> Array:
    """Return sorted panel edges over the reach, in standard deviations, with these points among them."""
    grid = np.linspace(-REACH, REACH, panels + 1)
    arrays = np.broadcast_arrays(*(np.asarray(s, float)[..., None] for s in special)) if special else []
    shape = np.broadcast_shapes(*(a.shape for a in arrays), (1,))
    parts = [np.broadcast_to(grid, (*shape[:-1], len(grid))), *arrays]
    return np.sort(np.clip(np.concatenate(parts, axis=-1), -REACH, REACH), axis=-1)


def _density(z: Array) -> Array:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _conditional(f: Plain, mean: Array, deviation: float, nodes: int = NODES) -> Array:
    """Return E[f(mean + deviation z)] for each mean."""
    if deviation == 0:
        return f.call(mean)
    z, w = _panels(_edges(*((k - mean) / deviation for k in f.kinks), *([0.0 * mean] if not f.kinks else [])), nodes)
    return (w * _density(z) * f.call(mean[..., None] + deviation * z)).sum(-1)


def _line(f: Plain, C: Array, m: Array) -> tuple[float, float]:
    fine, coarse = (float(_conditional(f, m[:1], np.sqrt(C[0, 0]), n)[0]) for n in (NODES + 8, NODES + 4))
    return fine, abs(fine - coarse) + 1e-13 * abs(fine)


def _plane(plain: list[Plain], C: Array, m: Array) -> tuple[float, float]:
    """The outer integral is smooth but for kinks of its own and steep flanks where the inner mean meets a kink."""
    (f, g), s = plain, np.sqrt(C[0, 0])
    slope = C[0, 1] / C[0, 0]
    width = np.sqrt(max(C[1, 1] - slope * C[0, 1], 0.0))
    special = [(k - m[0]) / s for k in f.kinks]
    if slope:
        centres = [(k - m[1]) / (slope * s) for k in g.kinks]
        flank = width / abs(slope * s)
        special += [c + side * flank for c in centres for side in (-8, -4, -2, -1, 0, 1, 2, 4, 8)]
    values = []
    for nodes in (NODES + 4, NODES):
        z, w = _panels(_edges(*special), nodes)
        h = m[0] + s * z
        inner = _conditional(g, m[1] + slope * (h - m[0]), float(width), nodes)
        values.append(float((w * _density(z) * f.call(h) * inner).sum()))
    return values[0], abs(values[0] - values[1]) + 1e-12 * abs(values[0])


def _closest_last(C: Array) -> list[int]:
    """Return an order of fields in which the most correlated two are last."""
    rho = np.abs(C) / np.sqrt(np.outer(np.diag(C), np.diag(C))) - np.eye(len(C))
    pair = [int(a) for a in np.unravel_index(np.argmax(rho), rho.shape)]
    return [a for a in range(len(C)) if a not in pair] + pair


def _nested(plain: list[Plain], C: Array, m: Array) -> tuple[float, float]:
    fine, *coarse = (_nested_rule(plain, _root(C), m, panels, nodes) for panels, nodes in NESTED[len(m)])
    return fine, max(abs(fine - other) for other in coarse) + 1e-12 * abs(fine)


def _nested_rule(plain: list[Plain], root: Array, m: Array, panels: int, nodes: int) -> float:
    weight, drawn = np.ones(()), list[Array]()
    for a, f in enumerate(plain):
        mean = m[a] + sum((root[a, b] * z for b, z in enumerate(drawn)), np.zeros(weight.shape))
        kinks = [(k - mean) / root[a, a] for k in f.kinks] or [np.zeros(mean.shape)]
        if a == len(m) - 2:
            kinks += _flanks(plain[-1], root, m, drawn, weight.shape)
        z, w = _panels(_edges(*kinks, panels=panels), nodes)
        weight = weight[..., None] * w * _density(z) * f.call(mean[..., None] + root[a, a] * z)
        drawn = [*(earlier[..., None] for earlier in drawn), z]
    return float(weight.sum())


def _flanks(last: Plain, root: Array, m: Array, drawn: list[Array], shape: tuple[int, ...]) -> list[Array]:
    """Return where the mean of the last field passes its kinks, if it does so steeply, as seen by the last but one."""
    *before, slope, width = root[-1]
    if not last.kinks or width > 0.3 * abs(slope):
        return []
    mean = m[-1] + sum((w * z for w, z in zip(before, drawn, strict=True)), np.zeros(shape))
    return [(k - mean + side * width) / slope for k in last.kinks for side in (-5, -2, 0, 2, 5)]


def _scattered(plain: list[Plain], C: Array, m: Array) -> tuple[float, float]:
    from scipy.special import ndtri
    from scipy.stats import qmc

    root = _root(C)
    estimates = []
    for seed in range(REPLICATES):
        points = qmc.Sobol(len(m) - 1, seed=seed).random(POINTS)
        h = ndtri(np.clip(points, 1e-16, 1 - 1e-16)) @ root[:, :-1].T + m
        values = _conditional(plain[-1], h[:, -1], float(root[-1, -1]), 8)
        for a, f in enumerate(plain[:-1]):
            values = values * f.call(h[:, a])
        estimates.append(values.mean())
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / np.sqrt(REPLICATES))


def _root(C: Array) -> Array:
    """Return the lower triangular root of a covariance that may be singular."""
    n = len(C)
    L = np.zeros((n, n))
    for b in range(n):
        left = C[b, b] - L[b, :b] @ L[b, :b]
        L[b, b] = np.sqrt(left) if left > 1e-13 * C[b, b] else 0.0
        if L[b, b]:
            L[b + 1 :, b] = (C[b + 1 :, b] - L[b + 1 :, :b] @ L[b, :b]) / L[b, b]
    return L


def _switches(f: sympy.Expr) -> tuple[float, ...]:
    """Return where anything inside a function switches, by bisection between the points of a grid."""
    conditions: list[sympy.Expr] = []
    for e in f.atoms(sympy.sign, sympy.Abs, sympy.Heaviside):
        conditions.append(e.args[0])
    for e in f.atoms(sympy.Max, sympy.Min):
        conditions += [p - q for p, q in itertools.combinations(e.args, 2)]
    for e in f.atoms(sympy.Piecewise):
        conditions += [r.lhs - r.rhs for _, c in e.args for r in c.atoms(Relational)]
    found = {root for c in conditions if c.has(X) for root in _zeros(c)}
    return tuple(sorted(found))


def _zeros(condition: sympy.Expr) -> list[float]:
    from scipy.optimize import brentq

    call = sympy.lambdify(X, condition, ["scipy", "numpy"])
    grid = np.concatenate([np.linspace(-40, 40, 16001) + 1e-7 * np.e, [0.0]])
    grid.sort()
    values = call(grid) * np.ones_like(grid)
    zeros = [float(x) for x in grid[values == 0]] if (values == 0).sum() < 5 else []
    jumps = np.flatnonzero(values[:-1] * values[1:] < 0)
    return zeros + [float(brentq(call, grid[n], grid[n + 1], xtol=1e-15)) for n in jumps]


def _deltas(f: sympy.Expr) -> tuple[tuple[float, float], ...]:
    """Return t and the weight of each δ(x − t) in a sum of functions times δ of affine arguments."""
    found = []
    for term in sympy.Add.make_args(sympy.expand(f)):
        (delta,) = (e for e in sympy.Mul.make_args(term) if isinstance(e, sympy.DiracDelta))
        slope = sympy.diff(delta.args[0], X)
        (t,) = sympy.solve(delta.args[0], X)
        found.append((float(t), float((term / delta).subs(X, t) / abs(slope))))
    return tuple(found)
