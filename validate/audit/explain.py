"""One equation's difference explained: by the fewest hypotheses, else by coefficients, else partly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import sympy

from .candidates import Candidate, Parts, Prepared, Rows, scaled_groups
from .coefficients import fit, monomial
from .result import Finding
from .selection import explanations
from .terms import text


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What explains the difference of one equation; no hypotheses if nothing does.

    ``coefficients`` stand beside the hypotheses; ``explained`` is measured on states that were not used.
    """

    rows: Rows
    mine: np.ndarray
    hypotheses: tuple[Candidate, ...]
    coefficients: tuple[float, ...]
    explained: float


def explain(prepared: Prepared, n: int, mine: np.ndarray, tolerance: float) -> Explanation:
    """Explain the difference between ``mine`` and the sum of the terms of equation number ``n``.

    Hypotheses are selected on the states of half of the sets of parameters, and must hold on the others too.
    """
    rows = prepared.every[n]
    parts, candidates = prepared.changes(n)
    difference = mine - rows.values.sum(0)
    tried = rows.sets % 2 == 0
    columns = np.array([c.column[tried] for c in candidates]).T.reshape(int(tried.sum()), len(candidates))
    members = [c.members for c in candidates]

    def selected(*counts: int) -> list[tuple[Candidate, ...]]:
        sets = explanations(columns, members, difference[tried], tolerance, counts)
        return [tuple(candidates[n] for n in sorted(s)) for s in sets]

    def compound() -> list[tuple[Candidate, ...]]:
        """Return changes of structure among terms that all have another coefficient."""
        return [
            (scaled, replace(candidates[n], column=factor * candidates[n].column))
            for scaled, factor in scaled_groups(rows, parts)
            for (n,) in explanations(columns, members, ((difference - scaled.column) / factor)[tried], tolerance, (1,))
            if set(candidates[n].members) <= set(scaled.members)
        ]

    def confirmed(sets: Sequence[tuple[Candidate, ...]]) -> Explanation | None:
        left = {s: _worst(difference - sum(c.column for c in s)) for s in sets}
        holding = [s for s in sets if left[s] <= tolerance]
        if not holding:
            return None
        bound = max(10 * min(left[s] for s in holding), 1e-9)
        best = next(s for s in holding if left[s] <= bound)
        return _measured(rows, mine, difference, best, ~tried)

    coarse = tolerance > 1e-5  # sums of many then agree by chance
    for search in (partial(selected, 1), partial(selected, 2), compound):
        if (found := confirmed(search())) is not None:
            return found
    by_coefficients = _coefficients(rows, mine, difference, tolerance, ())
    if by_coefficients and (coarse or len(by_coefficients) <= 3):
        return _measured(rows, mine, difference, by_coefficients, ~tried)
    if not coarse and (found := confirmed(selected(3, 4))) is not None:
        return found
    hypotheses = by_coefficients or _structure_and_coefficients(rows, parts, mine, difference, tolerance)
    return _measured(rows, mine, difference, hypotheses, ~tried)


def _worst(values: np.ndarray) -> float:
    return float(np.max(abs(values), initial=0.0))


def _measured(
    rows: Rows, mine: np.ndarray, difference: np.ndarray, chosen: Sequence[Candidate], held_out: np.ndarray
) -> Explanation:
    """Return an explanation with its coefficients and its success on states that were held out."""
    if not chosen:
        left = fit(rows, mine).left
        return Explanation(rows, mine, (), (), float(1 - np.sum(left**2) / np.sum(difference**2)))
    columns = np.array([c.column[held_out] for c in chosen]).T
    coefficients, *_ = np.linalg.lstsq(columns, difference[held_out], rcond=None)
    left = difference[held_out] - columns.sum(1)
    explained = 1 - np.sum(left**2) / np.sum(difference[held_out] ** 2)
    return Explanation(rows, mine, tuple(chosen), tuple(map(float, coefficients)), float(explained))


def _coefficients(
    rows: Rows, mine: np.ndarray, difference: np.ndarray, tolerance: float, more: Sequence[tuple[str, np.ndarray]]
) -> tuple[Candidate, ...]:
    """Return the terms with other coefficients if these explain the difference, else nothing.

    ``more`` are changed terms that may stand beside them.
    """
    found = fit(rows, mine, [column for _, column in more])
    if found.residual > tolerance or not found.determined:
        return ()
    chosen = []
    precision = max(tolerance * 10, 1e-8)
    for n, values in enumerate(found.coefficients.T):
        expected = 1.0 if n < len(rows.terms) else 0.0
        if np.max(abs(values - expected)) <= precision:
            continue
        formula = monomial(rows, values, precision)
        per_row = values[np.searchsorted(np.unique(rows.sets), rows.sets)]
        own = rows.values[n] if n < len(rows.terms) else more[n - len(rows.terms)][1]
        where = f"the term {rows.terms[n]}" if n < len(rows.terms) else ""
        value = "varying with the parameters" if formula is None else _formula_text(rows, formula)
        what = f"coefficient {value} where 1 is meant"
        if formula == 0:
            what = "missing"
        if not where:
            what = f"{more[n - len(rows.terms)][0]}, with the coefficient {value}"
        chosen.append(Candidate(what, where, (what,), (per_row - expected) * own, (n,)))
    return tuple(chosen)


def _formula_text(rows: Rows, formula: sympy.Expr) -> str:
    return text(rows.terms[0].dynamics, formula)


def _structure_and_coefficients(
    rows: Rows, parts: Parts, mine: np.ndarray, difference: np.ndarray, tolerance: float
) -> tuple[Candidate, ...]:
    """Return one change of structure with any coefficient, beside own terms with any coefficients."""
    best: tuple[Candidate, ...] = ()
    for n, changes in enumerate(parts.changed):
        for key, column in changes.items():
            what = f"{parts.structures[n][key].what} in the term {rows.terms[n]}"
            found = _coefficients(rows, mine, difference, tolerance, [(what, column)])
            if found and (not best or len(found) < len(best)):
                best = found
    return best


def named_together(found: Sequence[Explanation], ambiguous: bool) -> tuple[Finding, ...]:
    """Return findings, those of several equations that are the same mistake as one.

    Where hypotheses make the same difference in one equation, that is taken which explains another equation too.
    """
    shared = Counter(key for e in found for key in {k for c in e.hypotheses for a in (c, *c.aliases) for k in a.keys})
    merged: dict[str, list[Finding]] = {}
    for e in found:
        for candidate, coefficient in zip(e.hypotheses, e.coefficients, strict=True):
            names = (candidate, *candidate.aliases)
            most = max(min(shared[k] for k in a.keys) for a in names)
            best = next(a for a in names if min(shared[k] for k in a.keys) == most)
            other = tuple(dict.fromkeys(a.what for a in names if a.what != best.what))[:2] if ambiguous else ()
            state = e.rows.equation.quantity.name
            finding = Finding((state,), best.what, best.where, coefficient, e.explained, other)
            merged.setdefault(best.keys[0] if most > 1 else f"{state} {best.keys} {best.where}", []).append(finding)
    return tuple(_merged(findings) for findings in merged.values())


def _merged(findings: Sequence[Finding]) -> Finding:
    first = findings[0]
    if len(findings) == 1:
        return first
    where = {f.where for f in findings}
    whats = list(dict.fromkeys(f.what for f in findings))
    return Finding(
        tuple(dict.fromkeys(name for f in findings for name in f.equations)),
        " and ".join(whats[:3]),
        where.pop() if len(where) == 1 else "; ".join(f"{f.equations[0]}: {f.where}" for f in findings if f.where),
        float(np.mean([f.coefficient for f in findings])),
        min(f.explained for f in findings),
        first.alternatives,
    )
