"""Nodes of a rule over all fields that lie where an integrand needs them: along lines, in pieces between its kinks.

One direction is integrated in pieces that end where a switching function vanishes, for each node of a rule over the
others. What a kink leaves after that is smooth, unless the line is tangent to it or two kinks meet; so the direction is
one along which all switching functions grow. Where two of them meet, as the signs of two committees, whole planes are
integrated: along lines, and across them in pieces that end where both vanish. Nodes move smoothly with the
covariance. Knows nothing of expressions.

Source: Griewank, Kuo, Leövey and Sloan, J. Comput. Appl. Math. 344, 259 (2018), who integrate one variable.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

MAP = (2.91, -1.58, -0.76, -0.905)
"""A line is x = t (a + b t² + c t⁴)/(1 + d t²), |t| ≤ 1, close to a quantile of a normal law of deviation 2.4. That
lets pieces of any length do with few nodes; of polynomials, rational functions, artanh and quantiles it was the best
that needs no logarithm. It ends at |x| = 6."""
CELLS, STEPS = 12, 8
"""Into how many parts a line is cut to look for roots, and how often each root is then improved."""
RIDGE, SOFT = 0.2, 0.05
"""How far the direction avoids fields that are nearly combinations of others, and functions of little influence."""
SPARE = 2
"""How many more kinks a line or a plane may meet than each switching function once."""


def split_nodes(
    switches: "Callable[[numpy.ndarray], numpy.ndarray]",
    groups: Sequence[int],
    mean: "numpy.ndarray",
    factor: "numpy.ndarray",
    bundle: "tuple[numpy.ndarray, numpy.ndarray]",
    piece: "tuple[numpy.ndarray, numpy.ndarray]",
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return values of all fields, shape (nodes, fields), and their weights.

    Parameters
    ----------
    switches : callable
        Maps fields (points, fields) to what vanishes at kinks, (points, switches).
    groups : sequence of int
        Of each of these the function of which it is one level: kinks of the same function do not meet.
    mean, factor : array, shapes (fields,) and (fields, variables)
        The law of the fields, h = mean + factor z.
    bundle : tuple of array
        Nodes and weights of a rule over all variables but one, for lines, or but two, for planes.
    piece : tuple of array
        Nodes and weights of a rule on [−1, 1] for each piece.

    Examples
    --------
    >>> import numpy as np
    >>> piece, bundle = np.polynomial.legendre.leggauss(12), (np.zeros((1, 0)), np.ones(1))
    >>> h, w = split_nodes(lambda h: h[:, :1] - 0.3, [0], np.zeros(1), np.eye(1), bundle, piece)
    >>> round(float(w @ (h[:, 0] > 0.3)), 7)  # 1 − Φ(0.3)
    0.3820886
    """
    import numpy as np

    kinds, (x, weights) = np.asarray(groups), bundle
    along, across = _directions(switches, kinds, mean, factor)
    missing = factor.shape[1] - x.shape[1]
    points = np.concatenate([x, np.zeros((len(x), missing))], axis=1)
    if missing == 2:
        points = _turned(points, np.append(_turned(across[None, :], along, -1)[0, :-1], 0.0), -2)
    starts = mean + _turned(points, along, -1) @ factor.T
    if missing == 2:
        owner, t, part = _pieces(*_crossings(switches, kinds, starts, factor @ along, factor @ across), len(x), piece)
        starts, weights = starts[owner] + _far(t)[:, None] * (factor @ across), weights[owner] * part
    owner, t, part = _pieces(*_roots(switches, starts, factor @ along, len(kinds)), len(starts), piece)
    return starts[owner] + _far(t)[:, None] * (factor @ along), weights[owner] * part


def _far(t: "numpy.ndarray") -> "numpy.ndarray":
    """Return how far out the place t of a line is."""
    a, b, c, d = MAP
    u = t * t
    return t * (a + u * (b + u * c)) / (1 + d * u)


def _stretch(t: "numpy.ndarray") -> "numpy.ndarray":
    """Return the derivative of :func:`_far`."""
    a, b, c, d = MAP
    u = t * t
    return (a + u * (3 * b - a * d + u * (5 * c + b * d + u * 3 * c * d))) / (1 + d * u) ** 2


def _directions(
    switches: "Callable[[numpy.ndarray], numpy.ndarray]",
    groups: "numpy.ndarray",
    mean: "numpy.ndarray",
    factor: "numpy.ndarray",
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return the direction along which all switching functions grow, and one across it along which they come apart.

    Each is asked by how much it grows with each field; a step of one deviation, up or down, of all fields that matter
    to it is what the direction makes, as far as the fields are independent.
    """
    import numpy as np

    first = np.array([j for j, g in enumerate(groups) if g not in groups[:j]])
    size, (fields, variables) = np.sqrt((factor**2).sum(axis=1)), factor.shape
    values = switches(mean + np.concatenate([np.diag(size), -np.diag(size)]))[:, first].T
    growth = values[:, :fields] - values[:, fields:]
    growth = growth / np.sqrt((growth**2).sum(axis=1) + 1e-6 * (values**2).sum(axis=1) + 1e-300)[:, None]
    growth = growth / np.sqrt(growth**2 + SOFT**2)
    asked = (values[:, :fields] != values[:, fields:]).any(axis=0)  # of fields on which no function depends nothing
    rows = factor * np.where(asked & (size > 0), 1 / np.where(size > 0, size, 1.0), 0.0)[:, None]
    ways = np.linalg.solve(rows @ rows.T + RIDGE * np.eye(fields), growth.T).T @ rows
    ways = ways / np.sqrt((ways**2).sum(axis=1) + 1e-20)[:, None]
    along = ways.sum(axis=0) + 1e-3
    along = along / np.linalg.norm(along)
    apart = ways - np.outer(ways @ along, along)
    some = np.zeros(variables)
    some[-1], some[0] = 1e-3, 1.7e-3
    across = (apart @ apart[-1]) @ apart + some - (some @ along) * along
    return along, across / max(float(np.linalg.norm(across)), 1e-300)


def _turned(points: "numpy.ndarray", way: "numpy.ndarray", axis: int) -> "numpy.ndarray":
    """Return points mirrored so that the axis falls on a unit vector, pointing back. Source: Householder."""
    import numpy as np

    mirror = np.array(way)
    mirror[axis] += 1.0
    inverse = 1 / (1 + way[axis]) if way[axis] > 1e-12 - 1 else 0.0
    return points - inverse * np.outer(points @ mirror, mirror)


def _pieces(
    owner: "numpy.ndarray", cuts: "numpy.ndarray", lines: int, piece: "tuple[numpy.ndarray, numpy.ndarray]"
) -> "tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]":
    """Return the line, the place and the weight of each node, lines cut in the middle and at ``cuts``."""
    import numpy as np

    ends = np.repeat([-1.0, 0.0, 1.0], lines)
    cuts, owner = np.concatenate([ends, cuts]), np.concatenate([*[np.arange(lines)] * 3, owner])
    order = np.lexsort((cuts, owner))
    cuts, owner = cuts[order], owner[order]
    inside = owner[1:] == owner[:-1]
    low, high, owner = cuts[:-1][inside], cuts[1:][inside], owner[1:][inside]
    t = ((low + high)[:, None] + (high - low)[:, None] * piece[0]) / 2
    weights = (high - low)[:, None] * piece[1] * _stretch(t) * np.exp(-(_far(t) ** 2) / 2)
    total = np.bincount(owner, weights.sum(axis=1), minlength=lines)
    return np.repeat(owner, len(piece[0])), t.ravel(), (weights / total[owner][:, None]).ravel()


def _first_of_each(owner: "numpy.ndarray", most: int) -> "numpy.ndarray":
    """Return which entries of a sorted array are among the first of equal ones."""
    import numpy as np

    return np.arange(len(owner)) - np.searchsorted(owner, owner) < most


def _roots(
    switches: "Callable[[numpy.ndarray], numpy.ndarray]", starts: "numpy.ndarray", slope: "numpy.ndarray", count: int
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return the line and the place of each kink along lines, by false position (the Illinois algorithm)."""
    import numpy as np

    def at(line: "numpy.ndarray", t: "numpy.ndarray") -> "numpy.ndarray":
        return switches(starts[line] + _far(t)[:, None] * slope)

    t, lines = np.linspace(-1, 1, CELLS + 1), len(starts)
    values = at(np.repeat(np.arange(lines), CELLS + 1), np.tile(t, lines)).reshape(lines, CELLS + 1, count)
    line, which, cell = np.nonzero((values[:, 1:] * values[:, :-1] < 0).transpose(0, 2, 1))
    few = _first_of_each(line, count + SPARE)
    line, which, cell = line[few], which[few], cell[few]
    a, b, at_a, at_b = t[cell], t[cell + 1], values[line, cell, which], values[line, cell + 1, which]
    for _ in range(STEPS):
        flat = at_a == at_b
        root = np.where(flat, b, (a * at_b - b * at_a) / np.where(flat, 1.0, at_b - at_a))
        now = at(line, root)[np.arange(len(line)), which]
        passed = now * at_b < 0
        a, at_a = np.where(passed, b, a), np.where(passed, at_b, at_a / 2)
        b, at_b = root, now
    return line, b


def _crossings(
    switches: "Callable[[numpy.ndarray], numpy.ndarray]",
    groups: "numpy.ndarray",
    starts: "numpy.ndarray",
    along: "numpy.ndarray",
    across: "numpy.ndarray",
) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Return the plane, and the place across the lines, of each point of a plane where two kinks meet.

    In each cell of a grid in which two switching functions change sign, by Broyden's method from the cell's centre.
    """
    import numpy as np

    def at(plane: "numpy.ndarray", q: "numpy.ndarray", t: "numpy.ndarray") -> "numpy.ndarray":
        return switches(starts[plane] + _far(q)[:, None] * across + _far(t)[:, None] * along)

    grid, step = np.linspace(-1, 1, CELLS + 1), 2 / CELLS
    plane, q, t = (a.ravel() for a in np.meshgrid(np.arange(len(starts)), grid, grid, indexing="ij"))
    values = at(plane, q, t).reshape(len(starts), CELLS + 1, CELLS + 1, len(groups))
    corners = [values[:, a : a + CELLS, b : b + CELLS] for a in (0, 1) for b in (0, 1)]
    above = np.sum([c > 0 for c in corners], axis=0)
    mixed = (above > 0) & (above < 4)
    pairs = np.array([(j, k) for j in range(len(groups)) for k in range(j) if groups[j] != groups[k]])
    where = np.stack([mixed[..., j] & mixed[..., k] for j, k in pairs], axis=1)
    plane, pair, a, b = np.nonzero(where)
    both = pairs[pair].T
    c = np.stack([corner[plane, a, b, both] for corner in corners])  # corners, two functions, candidates
    slopes = np.stack([c[2] + c[3] - c[0] - c[1], c[1] + c[3] - c[0] - c[2]]) / (2 * step)  # by q and t
    scale = np.abs(c).max(axis=(0, 1))
    middle = np.stack([grid[a], grid[b]]) + step / 2
    place, level = middle, c.mean(axis=0)
    near = (np.abs(_newton(slopes, level)) < step).all(axis=0)
    plane, both, slopes, scale, middle = plane[near], both[:, near], slopes[..., near], scale[near], middle[:, near]
    place = middle.copy()
    level = at(plane, *place)[np.arange(len(plane)), both]
    for _ in range(STEPS):
        new = np.clip(place + _newton(slopes, level), np.maximum(middle - step, -1), np.minimum(middle + step, 1))
        move, place = new - place, new
        before, level = level, at(plane, *place)[np.arange(len(plane)), both]
        length = (move**2).sum(axis=0)
        missed = (level - before - (slopes * move[:, None]).sum(axis=0)) / np.where(length > 1e-28, length, np.inf)
        slopes = slopes + missed * move[:, None]
    found = (np.abs(place - middle) <= 0.51 * step).all(axis=0) & (np.abs(level).max(axis=0) < 1e-6 * scale)
    few = _first_of_each(plane[found], len(pairs) + SPARE)
    return plane[found][few], place[0][found][few]


def _newton(slopes: "numpy.ndarray", level: "numpy.ndarray") -> "numpy.ndarray":
    """Return the step to where two linear functions of two variables vanish; slopes are (variables, functions, …)."""
    import numpy as np

    det = slopes[0, 0] * slopes[1, 1] - slopes[1, 0] * slopes[0, 1]
    det = np.where(det == 0, 1e-300, det)
    q = (level[1] * slopes[1, 0] - level[0] * slopes[1, 1]) / det
    t = (level[0] * slopes[0, 1] - level[1] * slopes[0, 0]) / det
    return np.stack([q, t])
