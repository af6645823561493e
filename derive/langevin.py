"""The Langevin form of training at finite d: a stochastic differential equation for the order parameters.

A step moves Ω by X/d, where X has the drift b for its mean and D for its covariance over a fresh example. In time
steps/d that is dΩ = b dt + d^(−1/2) B dW with B Bᵀ = D. The covariance of each pair of states comes from the same
increments as the drift. Knows nothing of how paths are computed.
"""

import itertools
from dataclasses import replace
from functools import lru_cache

import sympy

from .averages import Example, is_random, jointly, take_expectations
from .diffusion import Covariation
from .dynamics import Dynamics, Quantity
from .fluctuations import update_rule
from .idle_fields import idle_covariances, idle_families, idle_means
from .moments import Value
from .one_example import increments
from .pipeline import DIMENSION
from .projection import held_overlaps
from .terms import assemble


@lru_cache(maxsize=32)
def langevin(dynamics: Dynamics) -> Dynamics:
    """Return equations of motion with the noise of training at finite d, as a Dynamics of kind ``"sde"``.

    Products of increments of polynomial networks are averaged term by term, in closed form. Of others they hold up to
    eight factors, four of them activations, summed over four units: they are averaged over all fields at once by a
    rule, and so are then the means that are subtracted, by the same one: what it gives is a covariance whatever its
    error. Fields on which no function depends, of momentum buffers, of the mean of the inputs, of the parts of vectors
    in blocks of the inputs, are then among the fields.

    Parameters
    ----------
    dynamics : Dynamics
        What ``model.dynamics()`` returns, in the high-dimensional limit.

    Raises
    ------
    ModelError
        If they were not derived from a model in that limit.
    NotYet
        For momentum at a fixed β with vectors of fixed length.
    """
    training = update_rule(dynamics, "sde()")
    example = training.example("auto")
    example = replace(
        example, fields=(*example.fields, *example.idle), idle=(), mean=(*example.mean, *idle_means(training))
    )
    steps = [(q, _scattering(expr, example)) for q, expr in increments(training)]
    functions = {value.args[0].function.expr for _, expr in steps for value in expr.atoms(Value)}
    polynomial = training.label is None and dynamics.model.loss.polynomial
    by_term = polynomial and all(f.is_polynomial() for f in functions)
    held = held_overlaps(training)
    noise = tuple(
        replace(entry := _covariation(*one, *two, example, by_term, training.batch), expr=training.timed(entry.expr))
        for one, two in itertools.combinations_with_replacement(steps, 2)
    )
    noise = tuple(replace(e, expr=e.expr * _moves(e.state, held) * _moves(e.other, held)) for e in noise)
    how = "" if by_term else "; its covariances numerical, by a rule over all fields at once"
    return replace(
        dynamics,
        title=f"{dynamics.title}, Langevin form",
        kind="sde",
        families=(*idle_families(training), *(f for f in dynamics.families if not f.given)),
        covariance=(*training.covariance, *idle_covariances(training)),
        mean=(*training.mean, *idle_means(training)),
        diffusion=tuple(entry for entry in noise if entry.expr != 0),
        parameters=(*dynamics.parameters, DIMENSION),
        assumptions=(*dynamics.assumptions, "many steps with small increments act as Gaussian noise"),
        status=f"the drift {dynamics.status}, noise to leading order in 1/d{how}",
        model=None,
        limit="",
    )


def _scattering(increment: sympy.Expr, example: Example) -> sympy.Expr:
    """Return the part of an increment that is random: the rest has no variance, not even by rounding."""
    return sympy.Add(*(part for part in sympy.Add.make_args(increment) if is_random(part, example)))


def _moves(q: Quantity, held: tuple[str, ...]) -> sympy.Expr:
    """Return 0 for squared lengths that are held, 1 for other states: no rounding is left to be factored."""
    return 1 - sympy.KroneckerDelta(*q.indices) if q.name in held else sympy.S.One


def _covariation(
    q: Quantity,
    of_q: sympy.Expr,
    r: Quantity,
    of_r: sympy.Expr,
    example: Example,
    by_term: bool,
    batch: sympy.Expr,
) -> Covariation:
    """Return the covariance of two states' increments for each unit of time; see :func:`.fluctuations.diffusion`."""
    apart = {index: sympy.Symbol(f"{index}_other", **index.assumptions0) for index in r.indices}
    other = replace(r, indices=tuple(apart.values()))
    free = q.indices + other.indices
    of_other = of_r.xreplace(apart)

    def mean(expr: sympy.Expr) -> sympy.Expr:
        return assemble((take_expectations if by_term else jointly)(expr, free, example))

    covariance = mean(of_q * of_other) - mean(of_q) * mean(of_other)
    return Covariation(q, other, covariance / DIMENSION.base / batch)
