"""A user's own equations against the derived ones: which term, index or factor differs."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import sympy
import xarray as xr

from effdyn.derive import Dynamics, ExpandedDynamics, ModelError, NotYet
from effdyn.derive.errors import Described, nearest

from .candidates import Evaluators, Prepared, Rows
from .coefficients import fit, monomial
from .explain import Explanation, explain, named_together
from .given import Arrays, Reader, read_given
from .result import Audit, Finding
from .states import default_sizes, random_batches
from .unexplained import describe

EXACT, NUMERICAL = 1e-7, 3e-3
"""Allowed by default, relative to the terms' size: closed forms lose half of the digits where fields coincide;
numerical expectations have the error of their rules, and a user's of another."""


SETS = 9
"""Of parameters: enough to tell the powers of six of them and two sizes."""


def audit(
    my_rhs: Any,
    dynamics: Dynamics,
    *,
    sizes: Mapping[str, int] | Sequence[Mapping[str, int]] | None = None,
    params: Mapping[str, Any] | None = None,
    packed: str | None = None,
    tolerance: float | None = None,
    states: int = 3,
    rng: Any = 0,
) -> Audit:
    """Compare a user's own equations with the derived ones, and say which term, index or factor differs.

    Both are evaluated at random admissible states. Where they differ, the difference is compared with those that a
    table of mistakes would make in each term of the derivation, alone or up to four together, and with changes of the
    terms' coefficients. What none of these explains is reported with its order in the learning rate and the parameters
    that it depends on.

    Parameters
    ----------
    my_rhs : callable, mapping or Dynamics
        One of

        - ``f(y, params) -> dict``: the time derivative of every state by name, with the shape of the state (``y["Q"]``
          of shape (K, K), symmetric in full); ``params`` holds floats and arrays by name;
        - with ``packed="full"``: ``f(t, y, params) -> array``, ``y`` all states one after the other, each flattened
          row by row; with ``packed="triangle"`` of symmetric states only the upper triangle, row by row;
        - SymPy expressions by name of state, in the indices of ``dynamics`` (as ``dynamics["Q"]`` is);
        - SymPy expressions by entry, ``{Q[1, 1]: …, Q[1, 2]: …}``, or what ``dynamics.expand(K=2, M=1)`` gives;
        - a Dynamics with the same states.
    dynamics : Dynamics
        The derived equations: an ODE or a map.
    sizes : mapping or sequence of mappings, optional
        Numbers of units at which to compare, such as ``dict(K=2, M=2)``. Default: two choices of different numbers,
        ``K=3, M=2`` and ``K=2, M=3``; for expressions by entry their own.
    params : mapping, optional
        Parameters that are fixed, for code that has them built in. The others are random, and differ from 1.
    packed : {"full", "triangle"}, optional
        The layout of a function that takes and returns one vector.
    tolerance : float, optional
        How much the equations may differ, relative to the sum of the absolute values of the terms. Default: 1e-7;
        3e-3 where the dynamics has numerical expectations. Give the accuracy of your own integrals if it is worse.
    states : int, optional
        At how many states for each of nine sets of parameters (at each of ``sizes``).
    rng : int or Generator, optional
        Of the random states.

    Returns
    -------
    Audit
        ``passed``, ``findings``, ``table``; prints as text.

    Raises
    ------
    ModelError
        If ``my_rhs`` is none of these, lacks an equation, or gives arrays of another shape or not finite.

    Examples
    --------
    >>> import sympy
    >>> from effdyn import derive, validate
    >>> dyn = derive.TeacherStudent(activation="erf").dynamics()
    >>> sigma = next(q.base for q in dyn.parameters if q.name == "sigma")
    >>> mine = {"Q": dyn["Q"].subs(sigma**2, sigma), "R": dyn["R"]}
    >>> (finding,) = validate.audit(mine, dyn).findings
    >>> print(finding.what)
    noise standard deviation used as variance: sigma where sigma^2 is meant
    >>> print(finding.where)
    the term eta^2 sigma^2 a_i a_k J_2(i,k)
    """
    if dynamics.kind not in ("ode", "map"):
        raise NotYet(f"audit of equations of kind {dynamics.kind!r}", "audit of differential equations and maps")
    read = read_given(my_rhs, dynamics, packed)
    allowed = tolerance if tolerance is not None else NUMERICAL if "numerical" in dynamics.status else EXACT
    numbers = _sizes(my_rhs, dynamics, sizes)
    known = [q.name for q in dynamics.parameters]
    for name in params or {}:
        if name not in known:
            raise ModelError("params", name, f"parameters among {', '.join(known)}{nearest(name, known)}")
    prepared = _prepare(dynamics, numbers, params, states, rng)
    given = [read(batch) for batch in prepared.batches]
    finite = [np.all([np.isfinite(v).all(tuple(range(1, v.ndim))) for v in g.values()], axis=0) for g in given]
    lost = sum(int((~f).sum()) for f in finite)
    if lost:
        prepared, given = _only(prepared, given, finite)
    mine = [_flat(given, rows) for rows in prepared.every]
    differences = {
        r.equation.quantity.name: _worst(m - r.values.sum(0)) for r, m in zip(prepared.every, mine, strict=True)
    }
    found = [
        explain(prepared, n, one, allowed)
        for n, (rows, one) in enumerate(zip(prepared.every, mine, strict=True))
        if differences[rows.equation.quantity.name] > allowed
    ]
    findings = named_together(found, ambiguous=bool(params) or len(numbers) == 1)
    findings += tuple(_unexplained(e, read, dynamics, prepared, allowed) for e in found if not e.hypotheses)
    total = sum(map(len, prepared.batches)) + lost
    if lost:
        findings += (_not_finite(given, lost, total),)
    return Audit(not findings, findings, _table(prepared.every, mine, allowed), differences, allowed, total - lost)


def _prepare(
    dyn: Dynamics,
    numbers: Sequence[Mapping[str, int]],
    params: Mapping[str, Any] | None,
    states: int,
    rng: Any,
) -> Prepared:
    """Return what does not depend on the user's equations; kept, as one audits again after each correction."""
    if not params and isinstance(rng, int):
        return _kept(dyn, tuple(tuple(one.items()) for one in numbers), states, rng)
    batches = random_batches(dyn, numbers, params or {}, SETS, states, np.random.default_rng(rng))
    return Prepared(Evaluators(dyn, batches))


@lru_cache(maxsize=4)
def _kept(dyn: Dynamics, numbers: tuple[tuple[tuple[str, int], ...], ...], states: int, seed: int) -> Prepared:
    return Prepared(
        Evaluators(dyn, random_batches(dyn, [dict(n) for n in numbers], {}, SETS, states, np.random.default_rng(seed)))
    )


def _only(prepared: Prepared, given: list[Arrays], finite: list[np.ndarray]) -> tuple[Prepared, list[Arrays]]:
    """Return what is left where a user's equations have values.

    Raises
    ------
    ModelError
        If that is less than half.
    """
    kept, total = sum(int(f.sum()) for f in finite), sum(map(len, finite))
    if 2 * kept < total or not all(f.any() for f in finite):
        accepted = "finite numbers at every admissible state"
        raise ModelError(
            "my_rhs", Described(f"a function that gives NaN or inf at {total - kept} of {total}"), accepted
        )
    batches = [batch.where(f) for batch, f in zip(prepared.batches, finite, strict=True)]
    left = [{name: v[f] for name, v in g.items()} for g, f in zip(given, finite, strict=True)]
    return Prepared(Evaluators(prepared.dynamics, batches)), left


def _not_finite(given: list[Arrays], lost: int, total: int) -> Finding:
    what = f"NaN or infinite at {lost} of {total} admissible states, which were left out of the comparison"
    return Finding(tuple(given[0]), what, "", float("nan"), 0.0)


def _sizes(
    my_rhs: Any, dyn: Dynamics, sizes: Mapping[str, int] | Sequence[Mapping[str, int]] | None
) -> list[dict[str, int]]:
    """Return the sizes at which to compare: those asked for, those of expressions by entry, or two choices."""
    if sizes is not None:
        asked = [dict(sizes)] if isinstance(sizes, Mapping) else [dict(one) for one in sizes]
        names = {str(s) for s in dyn.sizes}
        for one in asked:
            if set(one) != names:
                raise ModelError("sizes", one, f"a number for each of {', '.join(sorted(names))}")
        return asked
    if isinstance(my_rhs, ExpandedDynamics):
        return [dict(my_rhs.sizes)]
    if isinstance(my_rhs, Mapping) and not all(isinstance(name, str) for name in my_rhs):
        return [_sizes_of_entries(my_rhs, dyn)]
    return default_sizes(dyn)


def _sizes_of_entries(entries: Mapping[Any, Any], dyn: Dynamics) -> dict[str, int]:
    found: dict[str, int] = {}
    shapes = {q.name: q.shape for q in dyn.states}
    for left in entries:
        if isinstance(left, sympy.Indexed):
            for size, index in zip(shapes.get(str(left.base), ()), left.indices, strict=False):
                found[str(size)] = max(found.get(str(size), 0), int(index))
    if missing := [str(s) for s in dyn.sizes if str(s) not in found]:
        raise ModelError("sizes", Described("None"), f"a number for {', '.join(missing)}, which no entry tells")
    return found


def _flat(given: Sequence[Mapping[str, np.ndarray]], rows: Rows) -> np.ndarray:
    """Return a user's equation as rows."""
    name = rows.equation.quantity.name
    return np.asarray(np.concatenate([arrays[name].ravel() for arrays in given]) / rows.size)


def _worst(difference: np.ndarray) -> float:
    return float(np.max(abs(difference), initial=0.0))


def _unexplained(found: Explanation, read: Reader, dyn: Dynamics, prepared: Prepared, allowed: float) -> Finding:
    name = found.rows.equation.quantity.name
    return Finding((name,), describe(read, dyn, prepared.batches[0], found, allowed), "", float("nan"), found.explained)


def _table(every: Sequence[Rows], mine: Sequence[np.ndarray], tolerance: float) -> xr.Dataset:
    """Return the coefficient of every term."""
    names, texts, means, spreads, formulas = [], [], [], [], []
    for rows, one in zip(every, mine, strict=True):
        found = fit(rows, one)
        for term, values in zip(rows.terms, found.coefficients.T, strict=True):
            formula = monomial(rows, values, max(tolerance, 1e-7)) if found.residual <= 10 * tolerance else None
            names.append(rows.equation.quantity.name)
            texts.append(str(term))
            means.append(float(values.mean()))
            spreads.append(float(values.std()))
            formulas.append("" if formula is None else str(formula))
    columns = {"equation": names, "expression": texts, "coefficient": means, "spread": spreads, "formula": formulas}
    return xr.Dataset({name: ("term", np.array(values)) for name, values in columns.items()})
