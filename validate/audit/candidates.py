"""Every change that the table of hypotheses offers for one equation, evaluated: the columns among which to select."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sympy

from effdyn.derive import Dynamics, Equation

from .factors import Change, Rule
from .hypotheses import COEFFICIENTS, STRUCTURES, foreign_terms
from .structures import TAKEN
from .tensors import Batch, Evaluator, OutOfRange
from .terms import Group, OwnTerm, groups_of, index_symbols, own_terms

LEAST = 1e-10
"""A change that is smaller, relative to the equation, is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A hypothesis: what differs, in which terms, and how the equation would then differ (all entries of all states,
    in units of the size of the equation at each state)."""

    what: str
    where: str
    keys: tuple[str, ...]
    column: np.ndarray
    members: tuple[int, ...]
    aliases: "tuple[Candidate, ...]" = ()
    """Other hypotheses by which the equation would differ in the same way."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One equation at all states of all batches, flattened: a row is an entry of it at a state.

    ``size`` is that of the equation at the state: the largest sum of absolute values of terms over the entries.
    """

    equation: Equation
    terms: tuple[OwnTerm, ...]
    values: np.ndarray
    size: np.ndarray
    sets: np.ndarray
    scalars: dict[str, np.ndarray]
    entries: list[str]


class Evaluators:
    """The expressions of a Dynamics at several batches of states, also with arrays taken for others."""

    def __init__(self, dyn: Dynamics, batches: Sequence[Batch]) -> None:
        self.dynamics, self.batches = dyn, list(batches)
        free = [i for q in dyn.states for i in q.indices]
        self._symbols = index_symbols([e.expr for e in dyn.drift], free)
        self._cache: dict[tuple[str, str], list[Evaluator]] = {}

    def rows(self, equation: Equation, expr: sympy.Expr, given: tuple[str, str] = ("", "")) -> np.ndarray:
        """Return the values of an expression for all entries of an equation at all states."""
        q = equation.quantity
        arrays = [e.array(expr, q.indices, q.shape) for e in self._evaluators(given)]
        return np.concatenate([a.ravel() for a in arrays])

    def _evaluators(self, given: tuple[str, str]) -> list[Evaluator]:
        if given not in self._cache:
            self._cache[given] = [Evaluator(self.dynamics, _taken(b, *given), self._symbols) for b in self.batches]
        return self._cache[given]


def _taken(batch: Batch, name: str, kind: str) -> Batch:
    """Return a batch with one of its arrays taken for something else."""
    if not name:
        return batch
    if kind == "its transpose" and len(set(batch.values[name].shape[1:])) > 1:
        raise OutOfRange
    return Batch(batch.sizes, batch.values | {name: TAKEN[kind](batch.values[name])}, batch.group)


def rows_of(evaluators: Evaluators, equation: Equation) -> Rows:
    """Return the terms of an equation evaluated."""
    terms = own_terms(evaluators.dynamics, equation)
    raw = [evaluators.rows(equation, term.expr) for term in terms]
    dyn = evaluators.dynamics
    names = [q.name for q in dyn.parameters if not q.indices]
    sizes, sets, entries, offset = [], [], [], 0
    scalars: dict[str, list[np.ndarray]] = {name: [] for name in (*names, *map(str, dyn.sizes))}
    start = 0
    for batch in evaluators.batches:
        shape = tuple(batch.number(s) for s in equation.quantity.shape)
        per_state = int(np.prod(shape, dtype=int))
        part = slice(start, start + per_state * len(batch))
        total = np.sum([abs(v[part]) for v in raw], axis=0) if raw else np.ones(per_state * len(batch))
        size = total.reshape(len(batch), per_state).max(1)
        sizes.append(np.repeat(np.where(size > 0, size, 1.0), per_state))
        sets.append(np.repeat(batch.group + offset, per_state))
        for name in names:
            scalars[name].append(np.repeat(batch.values[name], per_state))
        for name in map(str, dyn.sizes):
            scalars[name].append(np.full(per_state * len(batch), float(batch.sizes[name])))
        labels = [_entry(equation.quantity.name, place) for place in np.ndindex(shape)]
        entries += labels * len(batch)
        offset, start = offset + int(batch.group.max()) + 1, part.stop
    size = np.concatenate(sizes)
    values = np.array(raw).reshape(len(terms), len(size)) / size
    numbers = {name: np.concatenate(parts) for name, parts in scalars.items()}
    return Rows(equation, terms, values, size, np.concatenate(sets), numbers, entries)


def _entry(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{','.join(str(n + 1) for n in place)}]" if place else name


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The changes of each term by key, in words and in numbers: factors of coefficients, and changed terms."""

    coefficients: list[dict[str, Change]]
    structures: list[dict[str, Change]]
    factors: list[dict[str, np.ndarray | float]]
    changed: list[dict[str, np.ndarray]]


def changes_of(evaluators: Evaluators, rows: Rows) -> Parts:
    """Return every change of every term of an equation, evaluated."""
    coefficients = [_changes(COEFFICIENTS, term) for term in rows.terms]
    structures = [_changes(STRUCTURES, term) for term in rows.terms]
    factors = [{key: _factor(rows, c.factor) for key, c in of_one.items()} for of_one in coefficients]
    return Parts(coefficients, structures, factors, [_evaluated(evaluators, rows, of_one) for of_one in structures])


def candidates_for(evaluators: Evaluators, rows: Rows, parts: Parts, all_rows: Sequence[Rows]) -> list[Candidate]:
    """Return every change of one kind in one group of terms, those that come to the same only once.

    The order is that of preference: simple before compound, a term before a group, common mistakes before rare ones.
    """
    scaled = [{k: f * rows.values[n] for k, f in found.items()} for n, found in enumerate(parts.factors)]
    groups = groups_of(rows.terms)
    sets = {group.members for group in groups}
    simple = [
        candidate
        for group in groups
        for changes, new in ((parts.coefficients, scaled), (parts.structures, parts.changed))
        for candidate in _in_group(rows, group, changes, new, sets)
    ]
    foreign = [
        Candidate(what, "", (what,), evaluators.rows(rows.equation, expr) / rows.size, ())
        for what, expr in foreign_terms(rows.terms, tuple(t for r in all_rows if r is not rows for t in r.terms))
    ]
    return _distinct([*simple, *foreign])


def scaled_groups(rows: Rows, parts: Parts) -> Iterator[tuple[Candidate, np.ndarray]]:
    """Yield changes of the coefficient of all terms of a group by the same factor, with the factor in every row.

    A change of structure in such terms is then multiplied by it.
    """
    one = np.ones(len(rows.size))
    for group in groups_of(rows.terms):
        for key in parts.factors[group.members[0]]:
            if all(key in parts.factors[n] for n in group.members):
                factor, *others = (parts.factors[n][key] * one for n in group.members)
                if factor.all() and all(np.array_equal(factor, other) for other in others):
                    column = (factor - 1) * rows.values[list(group.members)].sum(0)
                    what = _joined(parts.coefficients, group.members, key)
                    yield Candidate(what, group.name, (key,), column, group.members), factor


def _changes(rules: Iterable[Rule], term: OwnTerm) -> dict[str, Change]:
    """Return the changes of a term by key, the first of each."""
    found: dict[str, Change] = {}
    for rule in rules:
        for change in rule(term):
            found.setdefault(change.key, change)
    return found


def _factor(rows: Rows, factor: sympy.Expr) -> np.ndarray | float:
    """Return a factor in every row; it is a product of powers of scalars."""
    value: np.ndarray | float = 1.0
    for base, power in factor.as_powers_dict().items():
        number = rows.scalars[base.name] if isinstance(base, sympy.Symbol) else float(base)
        value = value * number ** float(power)
    return value


def _evaluated(evaluators: Evaluators, rows: Rows, changes: dict[str, Change]) -> dict[str, np.ndarray]:
    """Return what the term becomes by each change of structure that can be evaluated."""
    found = {}
    for key, change in changes.items():
        if change.expr is None:
            continue
        try:
            values = evaluators.rows(rows.equation, change.expr, change.given) / rows.size
        except OutOfRange:
            continue
        if np.isfinite(values).all():
            found[key] = values
    return found


def _in_group(
    rows: Rows,
    group: Group,
    changes: list[dict[str, Change]],
    new: list[dict[str, np.ndarray]],
    sets: set[tuple[int, ...]],
) -> list[Candidate]:
    """Return the changes that terms of a group share, as columns; ``sets`` are the members of all groups."""
    found = []
    for key in dict.fromkeys(k for n in group.members for k in new[n]):
        having = [n for n in group.members if key in new[n]]
        if tuple(having) == group.members or tuple(having) not in sets:
            column = np.sum([new[n][key] - rows.values[n] for n in having], axis=0)
            found.append(Candidate(_joined(changes, having, key), group.name, (key,), column, tuple(having)))
    return found


def _joined(changes: list[dict[str, Change]], having: Sequence[int], key: str) -> str:
    """Return what a change of several terms is, in words that fit all of them."""
    whats = list(dict.fromkeys(changes[n][key].what for n in having))
    return whats[0] if len(whats) == 1 else " and ".join(whats) if len(whats) <= 2 else key


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates that change something, one of each that change the same, with the others as aliases."""
    if not candidates:
        return []
    rng = np.random.default_rng(0)
    probe = rng.standard_normal((3, len(candidates[0].column))) / np.sqrt(len(candidates[0].column))
    seen: dict[tuple[float, ...], list[Candidate]] = {}
    for candidate in candidates:
        if np.sqrt(np.mean(candidate.column**2)) > LEAST:
            seen.setdefault(tuple(float(f"{v:.6g}") for v in probe @ candidate.column), []).append(candidate)
    return [replace(first, aliases=tuple(others)) for first, *others in seen.values()]


class Prepared:
    """The derivation's side of an audit: states, terms, and the changes of each equation, computed when needed."""

    def __init__(self, evaluators: Evaluators) -> None:
        self.evaluators, self.dynamics, self.batches = evaluators, evaluators.dynamics, evaluators.batches
        self.every = [rows_of(evaluators, equation) for equation in self.dynamics.drift]
        self._changes: dict[int, tuple[Parts, list[Candidate]]] = {}

    def changes(self, n: int) -> tuple[Parts, list[Candidate]]:
        """Return the changes of the terms of equation number ``n``, and the hypotheses made of them."""
        if n not in self._changes:
            parts = changes_of(self.evaluators, self.every[n])
            self._changes[n] = parts, candidates_for(self.evaluators, self.every[n], parts, self.every)
        return self._changes[n]
