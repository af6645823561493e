"""What |x|² and pairs of examples add to the mean at order 1/d, by averages over one example: tables of which entries.

The rule is :class:`effdyn.derive.one_example.Kicks`; inputs without blocks are one block. Knows nothing of models.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from dataclasses import dataclass

import numpy as np
import sympy
from numba import njit

from effdyn.derive.fluctuations import Fluctuations

from ..kernels.layout import Inputs, pack, unpack
from .algebra import HELPER
from .fields import family_size
from .start import is_stored

OWN = 6
"""How many numbers an entry has that is not of lengths."""


@dataclass(frozen=True, slots=True, eq=False)
class ByRule:
    """Which terms of the n states the rule over examples gives.

    Attributes
    ----------
    entries : ndarray, shape (n, OWN + 2 B)
        For each packed state which two kicks its increment multiplies, −1 for none; in which block of the inputs; how
        many pairs of examples do, for each example: 1 − 1/b of a step, and those of different steps; how often a kick
        of either vector meets itself in a buffer; and which packed states are the squared lengths of its two vectors in
        each block, −1 where they are not held.
    moved : ndarray of int, shape (n_kicks,)
        For each kick, the number of the active field of the vector that it moves; −1 for none.
    scale : ndarray, shape (max(B, 1),)
        By what E[∂F/∂h] is multiplied where a kick meets itself in a buffer, in each block: λ_g E|x_g|²/d.
    center : int
        The number of the field of the inputs' mean; −1 if they have none.
    variance : ndarray, shape (B,)
        Of the inputs in each block; empty if there are no blocks.
    parts : ndarray of int, shape (B, active)
        The number of the field of the part in each block, for each field on which functions depend.
    """

    entries: np.ndarray
    moved: np.ndarray
    scale: np.ndarray
    center: int
    variance: np.ndarray
    parts: np.ndarray

    def numbers(self) -> np.ndarray:
        """Return all as one vector, after a head: the numbers of kicks, of the center, and of blocks."""
        head = (self.n_kicks, self.center, len(self.variance))
        arrays = (self.moved, self.scale, np.ravel(self.entries), self.variance, np.ravel(self.parts))
        return np.concatenate([head, *arrays]).astype(float)

    @property
    def n_kicks(self) -> int:
        """How many kicks there are."""
        return len(self.moved)


def by_rule_of(theory: Fluctuations, inputs: Inputs) -> ByRule | None:
    """Return what the rule over examples gives at these parameters; None where all has forms of its own."""
    if theory.kicks is None:
        return None
    kicks = theory.kicks
    start = np.cumsum([0, *(inputs.sizes[str(q.shape[0])] for q, _ in kicks.quantities)])
    variance = inputs.params["input_variance"] if kicks.parts else np.zeros(0)
    blocks = range(max(1, len(variance)))
    rows = [row for n in range(len(kicks.pairs)) for row in _entries(theory, inputs, n, start, blocks)]
    starts = _starts(theory, inputs)
    center = starts[kicks.center] if kicks.center else -1
    counts = [inputs.sizes[str(family.size)] for family in theory.active]
    parts = [
        [starts[part] + g * count + n for part, count in zip(kicks.parts, counts, strict=True) for n in range(count)]
        for g in range(len(variance))
    ]
    scale = variance**2 * inputs.params["input_share"] if kicks.parts else np.ones(1)
    return ByRule(np.array(rows, float), _moved(theory, inputs), scale, center, variance, np.array(parts, float))


def _moved(theory: Fluctuations, inputs: Inputs) -> np.ndarray:
    """Return the numbers of the active fields of the vectors that kicks move; in blocks kicks are of their parts."""
    assert theory.kicks is not None
    starts = _starts(theory, inputs)
    whole = {part: str(f.base) for part, f in zip(theory.kicks.parts, theory.active, strict=False)}
    active = {str(f.base) for f in theory.active}
    found: list[int] = []
    for q, _ in theory.kicks.quantities:
        base = q.name.removeprefix("kick_")
        family, count = whole.get(base, base), inputs.sizes[str(q.shape[0])]
        found += range(starts[family], starts[family] + count) if family in active else [-1] * count
    return np.array(found)


def _entries(
    theory: Fluctuations, inputs: Inputs, place: int, start: np.ndarray, blocks: range
) -> list[tuple[float, ...]]:
    """Return the rows of the state of that number."""
    assert theory.kicks is not None
    q, pair, squares = theory.dynamics.states[place], theory.kicks.pairs[place], theory.kicks.squares[place]
    numbers = _packed_numbers(theory, inputs)
    remembered = [[_number(e, inputs) for e in side] for side in theory.kicks.remembered[place]]
    batch = _number(theory.batch, inputs)
    share = 1 - 1 / batch + sum(pairs for pairs, _ in remembered)
    own = [each / batch for _, each in remembered]
    found = []
    for e in np.ndindex(*inputs.y0[q.name].shape):
        if not is_stored(q, e):
            continue
        both = (start[pair[0]] + e[-2], start[pair[1]] + e[-1]) if pair else (-1, -1)
        units = (*e, 0, 0)[:2] if len(e) < 3 else e[1:]  # of the two vectors, where these are one of several
        block = e[0] if theory.kicks.parts and len(e) == 3 else 0
        lengths = [
            numbers[s].reshape(len(blocks), *numbers[s].shape[-2:])[g, unit, unit] if s else -1
            for s, unit in zip(squares, units, strict=True)
            for g in blocks
        ]
        found.append((*both, block, share, *own, *lengths))
    return found


def _number(expr: sympy.Expr, inputs: Inputs) -> float:
    """Return the value of an expression in parameters that are numbers."""
    return float(expr.xreplace({s: sympy.Float(float(inputs.params[s.name])) for s in expr.free_symbols}))


def _packed_numbers(theory: Fluctuations, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return for each state the numbers of its entries among the packed ones."""
    n = len(pack(theory.dynamics.states, inputs.y0))
    return unpack(theory.dynamics.states, np.arange(float(n)), inputs.sizes)


def _starts(theory: Fluctuations, inputs: Inputs) -> dict[str, int]:
    """Return the number of the first field of each family."""
    counts = [family_size(family, inputs.sizes) for family in theory.families]
    return {str(f.base): int(n) for f, n in zip(theory.families, np.cumsum([0, *counts]), strict=False)}


@njit(**HELPER)
def fill_metrics(factor, fields, active, variance, parts, metrics):
    """Put λ_g L⁻¹ λ_g Ω_g L⁻ᵀ of each block, (B, active, active): of inputs without blocks the identity.

    Rows of the factor of all fields are λ_g Ω_g L⁻ᵀ for the fields of parts; directions without variance give zeros.
    """
    metrics[:] = 0.0
    if variance.size == 0:
        for a in range(active):
            metrics[a * active + a] = 1.0
    for g in range(variance.size):
        own = metrics[g * active * active : (g + 1) * active * active]
        for a in range(active):
            pivot = factor[a * fields + a]
            if pivot == 0.0:
                continue
            for b in range(active):
                total = variance[g] * factor[int(parts[g * active + a]) * fields + b]
                for j in range(a):
                    total -= factor[a * fields + j] * own[j * active + b]
                own[a * active + b] = total / pivot


@njit(**HELPER)
def quadratic(metric, n, one, other):
    """Return oneᵀ metric other."""
    total = 0.0
    for a in range(n):
        for b in range(n):
            total += one[a] * metric[a * n + b] * other[b]
    return total


@njit(**HELPER)
def add_pairs(gradient, fields, active, metrics, entries, raw):
    """Add what two examples do together in a free step."""
    n, blocks = raw.size, metrics.size // (active * active)
    width = OWN + 2 * blocks
    for i in range(n):
        one, other, block = int(entries[width * i]), int(entries[width * i + 1]), int(entries[width * i + 2])
        share = entries[width * i + 3]
        if one < 0:
            continue
        u, v = gradient[one * fields : (one + 1) * fields], gradient[other * fields : (other + 1) * fields]
        metric = metrics[block * active * active : (block + 1) * active * active]
        raw[i] += share * quadratic(metric, active, u, v)
        for a in range(active, fields):
            raw[i] += share * u[a] * v[a]


@njit(**HELPER)
def add_remembered(gradient, squares, fields, active, factor, shift, moved, scale, entries, raw):
    """Add what kicks do that meet themselves in buffers, of their second moments and means ``squares``.

    ``gradient``, of E[F x], is left with E[∂F/∂h].
    """
    kicks, width = moved.size, OWN + 2 * scale.size
    for k in range(kicks):
        own = gradient[k * fields : (k + 1) * fields]
        if shift >= 0:
            for a in range(active):
                own[a] -= squares[kicks * kicks + k] * factor[shift * fields + a]
        for a in range(active - 1, -1, -1):
            pivot = factor[a * fields + a]
            for b in range(a + 1, active):
                own[a] -= factor[b * fields + a] * own[b]
            own[a] = own[a] / pivot if pivot > 0.0 else 0.0
    for i in range(raw.size):
        block = int(entries[width * i + 2])
        for side in range(2):
            often = entries[width * i + 4 + side]
            if often == 0.0 or entries[width * i] < 0.0:
                continue
            holds, other = int(entries[width * i + side]), int(entries[width * i + 1 - side])
            for k in range(kicks):
                if moved[k] >= 0.0:
                    slope = gradient[other * fields + int(moved[k])]
                    raw[i] += often * scale[block] * slope * squares[k * kicks + holds]


@njit(**HELPER)
def add_rescaled(raw, entries, blocks, state, out):
    """Add what is left of the increments of a free step when vectors are rescaled to their lengths, if these are held:
    of squared lengths nothing."""
    width = OWN + 2 * blocks
    for i in range(raw.size):
        out[i] += raw[i]
        for side in range(2):
            first = width * i + OWN + side * blocks
            if entries[first] >= 0:
                moved, length = 0.0, 0.0
                for square in entries[first : first + blocks]:
                    moved += raw[int(square)]
                    length += state[int(square)]
                out[i] -= 0.5 * state[i] * moved / length
