"""The expectation of any expression in Gaussian fields, as a number with an error.

In turn: sums of products of functions of one field each, by the rules for moments; one variable, by panels between
kinks; several, by lattice rules, with one variable integrated exactly along lines if there are kinks. Knows nothing
about networks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy

from ..activation import X
from ..errors import NoClosedForm
from .existence import check_exists, directions_of, size_at
from .lines import line_integrals
from .problem import Problem, problem_of

Estimate = tuple[float, float]
"""A value and its error."""
ROUNDING = 1e-14
"""Relative error of a sum of terms that do not cancel."""


def numerical_expectation(
    expr: sympy.Expr,
    fields: Sequence[sympy.Symbol],
    C: Any,
    m: Any = None,
    *,
    rtol: float = 1e-8,
) -> Estimate:
    """Return E[expr] over jointly Gaussian fields, and an estimate of its error.

    Parameters
    ----------
    expr : sympy.Expr
        Any real expression in the fields: smooth or with kinks and jumps (``Abs``, ``Max``, ``sign``, ``Piecewise``,
        ``floor``), functions of several fields, functions implemented in Python (``implemented_function``).
    fields : sequence of Symbol
    C : array, shape (n, n)
        Their covariance, which may be singular.
    m : array, shape (n,), optional
        Their means.
    rtol : float, optional
        The relative error at which to stop. It may not be reached; the error that is returned says so.

    Raises
    ------
    ModelError
        If ``C`` is not a covariance, or the expression is complex, not finite, or has no expectation.

    Examples
    --------
    >>> u, v = sympy.symbols("u v", real=True)
    >>> value, error = numerical_expectation(sympy.Max(0, 1 - u * v), (u, v), [[1.0, 0.5], [0.5, 1.0]])
    >>> print(f"{value:.9f}", error < 1e-8)
    0.746082656 True
    """
    problem = problem_of(expr, fields, C, m)
    if not problem.dimension:
        return float(problem.function(problem.mean[None, :])[0]), 0.0
    check_exists(problem)
    best: Estimate | None = None
    for estimate in _estimates(problem):
        if best is None or estimate[1] < best[1]:
            best = estimate
        if best[1] <= rtol * abs(best[0]) + 1e-300:
            break
    if best is None:
        raise AssertionError("every problem has at least one estimate")
    return best


def _estimates(problem: Problem) -> Iterator[Estimate]:
    """Yield ever better estimates, cheap ones first."""
    products = _by_moments(problem)
    if products is not None:
        yield products
    missing = size_at(problem, directions_of(problem), 8.0)  # rules do not reach beyond
    for value, error in _by_rules(problem):
        yield value, error + missing


def _by_rules(problem: Problem) -> Iterator[Estimate]:
    if problem.dimension == 1:
        yield from _along_a_line(problem)
        return
    if not problem.kinks or problem.dimension > 6:
        yield _at_once(problem, 0)
        yield _at_once(problem, 1)
    if problem.dimension == 2:
        yield from _over_a_plane(problem)
        return
    if problem.dimension <= 6:
        yield _line_by_line(problem, 0)
    if problem.dimension == 3:
        yield _line_by_line(problem, 1)


def _by_moments(problem: Problem) -> Estimate | None:
    """Return the estimate from moments, if the expression is a sum of products of functions of one field each."""
    from .moment_forms import moment_form, moment_value

    terms = sympy.Add.make_args(sympy.expand(problem.expr, deep=False, power_base=False))
    if len(terms) > 50:
        return None
    total = size = error = 0.0
    for term in terms:
        constant, rest = term.as_independent(*problem.fields, as_Add=False)
        functions: dict[int, sympy.Expr] = {}
        for factor in sympy.Mul.make_args(rest) if rest != 1 else ():
            mine = [n for n, f in enumerate(problem.fields) if factor.has(f)]
            if len(mine) != 1:
                return None
            functions[mine[0]] = functions.get(mine[0], sympy.S.One) * factor.xreplace({problem.fields[mine[0]]: X})
        if not functions:
            total, size = total + float(constant), size + abs(float(constant))
            continue
        where = sorted(functions)
        C, mean = problem.C[where][:, where], problem.mean[where]
        shifted = bool((mean != 0).any())
        try:
            form = moment_form(tuple(sympy.Lambda(X, functions[n]) for n in where), shifted, limit=2)
        except NoClosedForm:
            return None
        fine = float(constant) * moment_value(form, C, mean, level=1)
        coarse = fine if form.exact else float(constant) * moment_value(form, C, mean, level=0)
        total, size, error = total + fine, size + abs(fine), error + 2 * abs(fine - coarse)
    return (total, error + ROUNDING * size) if abs(total) < float("inf") else None


def _along_a_line(problem: Problem) -> Iterator[Estimate]:
    """Yield estimates by panels between kinks, with twice as many panels each time or more."""

    def value(panels: int) -> float:
        return float(
            line_integrals(problem.function, problem.kinks, problem.mean[None, :], problem.factor[:, 0], panels)[0]
        )

    return _refined(value, (24, 48, 96, 192, 384, 768, 3072, 12288))


def _over_a_plane(problem: Problem) -> Iterator[Estimate]:
    """Yield estimates by panels along lines and across them, cut at 0, where kinks of centred fields meet."""

    def value(panels: int) -> float:
        def across(points: Any) -> Any:
            starts = problem.mean + points * problem.factor[:, 1]
            return line_integrals(problem.function, problem.kinks, starts, problem.factor[:, 0], max(24, panels // 8))

        import numpy as np

        return float(line_integrals(across, (), np.zeros((1, 1)), np.ones(1), panels)[0])

    return _refined(value, (16, 32, 64, 128, 256))


def _refined(value: Callable[[int], float], numbers: Sequence[int]) -> Iterator[Estimate]:
    """Yield values for growing numbers of panels, with twice the distance from the one before as their error."""
    before = value(numbers[0])
    for panels in numbers[1:]:
        now = value(panels)
        yield now, 2 * abs(now - before) + ROUNDING * abs(now)
        before = now


def _at_once(problem: Problem, level: int) -> Estimate:
    """Return the estimate by a rule over all variables."""
    from .joint import REPLICATES, joint_error
    from .rules import joint_rule

    kind = "rough" if problem.kinks else "smooth"
    rules = (joint_rule(problem.dimension, kind, level, shift) for shift in range(REPLICATES))
    values = [float(weights @ problem.at(nodes)) for nodes, weights in rules]
    return values[0], float(joint_error(values)) + ROUNDING * abs(values[0])


def _line_by_line(problem: Problem, level: int) -> Estimate:
    """Return the estimate with the first variable integrated along lines, split at kinks, and a rule over the others.

    What a kink leaves after one integration is smooth, unless the line is tangent to it. Source: Griewank, Kuo, Leövey
    and Sloan, J. Comput. Appl. Math. 344, 259 (2018).
    """
    from .joint import REPLICATES, joint_error
    from .rules import joint_rule

    panels = 24 if level < 1 else 48
    values: list[Any] = []
    for shift in range(REPLICATES):
        nodes, weights = joint_rule(problem.dimension - 1, "smooth", level, shift)
        total = 0.0
        for part in range(0, len(nodes), 2000):
            starts = problem.mean + nodes[part : part + 2000] @ problem.factor[:, 1:].T
            lines = line_integrals(problem.function, problem.kinks, starts, problem.factor[:, 0], panels + 5 * shift)
            total += float(weights[part : part + 2000] @ lines)
        values.append(total)
    return values[0], float(joint_error(values)) + ROUNDING * abs(values[0])
