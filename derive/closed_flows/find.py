"""``find_closed_form``: an ordered table of detectors, tried on one equation after the other."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import sympy

from .bernoulli import bernoulli
from .conic import conic
from .driven import driven
from .elementary import constant, linear
from .flow import Condition, Flow, Recipe, Solved, Unsuitable, condition
from .quadrature import quadrature
from .results import ClosedForm, NotFound
from .riccati import riccati
from .standard import Standard, standardise
from .two_powers import two_powers
from .verify import Verification, verify

Detector = Callable[[Flow], Solved]

AUTONOMOUS: tuple[Detector, ...] = (constant, linear, bernoulli, riccati, conic, two_powers, quadrature)
"""For equations without moving coefficients: simplest solutions first, integrals that must be inverted last."""
DRIVEN: tuple[Detector, ...] = (driven,)
"""For equations whose coefficients are moved by states that are solved already."""


def find_closed_form(
    equations: Mapping[sympy.Expr, sympy.Expr],
    t: sympy.Symbol,
    initial: Mapping[sympy.Expr, sympy.Expr] | None = None,
) -> ClosedForm | NotFound:
    """Return the solution of equations of motion, if a detector recognises each of them.

    States are solved in the order in which they drive each other. Each candidate is verified, by substitution in many
    digits and against numerical integration, before it is returned; ``dsolve`` and ``integrate`` are not used.

    Parameters
    ----------
    equations : mapping
        The time derivative of each state. A state is a symbol, or an entry ``s[alpha]`` of an array, whose equation
        holds for every alpha and must not contain other entries. All symbols are taken as real.
    t : Symbol
        Time.
    initial : mapping, optional
        How the initial value of a state is written; by default ``s_0``, ``s_0[alpha]``.

    Returns
    -------
    ClosedForm or NotFound
        ``NotFound`` is false, and says why.

    Raises
    ------
    ModelError
        For arguments that are not equations.

    Examples
    --------
    >>> s, c, delta, lam, t = sympy.symbols("s c delta lam t", real=True)
    >>> form = find_closed_form({s: c - delta * s}, t)
    >>> form.method
    'linear'
    >>> form = find_closed_form({s: sympy.sqrt(lam**2 + 4 * s**2) * (c - delta * s)}, t)
    >>> print(form([0.5, 50], y0=dict(s=-0.1), params=dict(c=1.0, delta=2.0, lam=0.3))["s"].round(8))
    [0.06189635 0.5       ]
    >>> print(find_closed_form({s: sympy.sin(s) - c}, t).reason)
    no detector recognises ds/dt = -c + sin(s)
    """
    try:
        standard = standardise(equations, t, initial or {})
        order = _in_order(standard)
    except Unsuitable as obstacle:
        return NotFound(str(obstacle))
    solved: list[Solved] = []
    verified: list[Verification] = []
    for flow in order:
        outcome = _solve(replace(flow, known=tuple(solved)))
        if isinstance(outcome, NotFound):
            return replace(outcome, state=standard.restored(flow.state), reason=outcome.reason)
        part, verification = outcome
        solved.append(part)
        verified.append(verification)
    return _closed_form(solved, verified, standard, t)


def _in_order(standard: Standard) -> list[Flow]:
    """Return the equations so that each is driven by earlier ones only."""
    starts = dict(zip((s for s, _ in standard.rates), (symbol for symbol, _ in standard.starts), strict=True))
    waiting, done, order = dict(standard.rates), set[sympy.Symbol](), list[Flow]()
    while waiting:
        free = [s for s, rate in waiting.items() if not (rate.free_symbols & set(waiting)) - {s}]
        if not free:
            names = ", ".join(str(s) for s in waiting)
            raise Unsuitable(f"{names} drive each other: reduce them first, by their conserved quantities")
        for s in free:
            order.append(Flow(s, waiting.pop(s), standard.time, starts[s]))
            done.add(s)
    return order


def _solve(flow: Flow) -> tuple[Solved, Verification] | NotFound:
    if flow.rate.has(flow.time):
        return NotFound(f"the rate of {flow.state} depends on {flow.time} explicitly")
    tried: list[tuple[str, str]] = []
    detectors = AUTONOMOUS if flow.coefficients_known else DRIVEN
    for attempt in (lambda d: d(flow), lambda d: _while_positive(d, flow)):
        for detector in detectors:
            try:
                part = attempt(detector)
                return part, verify(_chain(part))
            except Unsuitable as obstacle:
                tried.append((detector.__name__, str(obstacle)))
        if flow.state.is_positive or not flow.coefficients_known or not _has_modulus(flow):
            break
    return NotFound(_reason(flow), tried=tuple(dict.fromkeys(tried)))


def _chain(part: Solved) -> list[Solved]:
    """Return the solved states that drive it, directly or not, and itself."""
    needed, chain = set(part.flow.rate.free_symbols), [part]
    for earlier in reversed(part.flow.known):
        if earlier.flow.state in needed:
            chain.insert(0, earlier)
            needed |= earlier.flow.rate.free_symbols
    return chain


def _has_modulus(flow: Flow) -> bool:
    return any(a.has(flow.state) for a in flow.rate.atoms(sympy.Abs, sympy.Pow, sympy.sign))


def _while_positive(detector: Detector, flow: Flow) -> Solved:
    """Solve as if the state were positive, where |s| is s, and demand that it is."""
    positive = {s: sympy.Symbol(s.name, positive=True) for s in (flow.state, flow.start)}
    back = {dummy: s for s, dummy in positive.items()}
    part = detector(Flow(positive[flow.state], flow.rate.xreplace(positive), flow.time, positive[flow.start]))
    stays: tuple[Condition, ...] = ()
    if part.solution is not None and detector in (constant, linear, riccati, conic):
        stays = condition(part.solution.xreplace(back) > 0, f"{flow.state} stays above zero")
    start = condition(flow.start > 0, f"{flow.state} starts above zero")
    return Solved(
        flow,
        part.method,
        None if part.solution is None else part.solution.xreplace(back),
        None if part.implicit is None else part.implicit.xreplace(back),
        (*start, *(replace(c, relation=c.relation.xreplace(back)) for c in part.conditions), *stays),
        None if part.recipe is None else _recipe_back(part.recipe, back),
        written=None if part.written is None else part.written.xreplace(back),
        definitions=tuple((symbol, meaning.xreplace(back)) for symbol, meaning in part.definitions),
    )


def _recipe_back(recipe: Recipe, back: Mapping[sympy.Symbol, sympy.Symbol]) -> Recipe:
    return Recipe(recipe.function, tuple(a.xreplace(back) for a in recipe.arguments))


def _reason(flow: Flow) -> str:
    """Say what kind of integral stands in the way, where that can be told."""
    s = flow.state
    under = {p.base for p in flow.rate.atoms(sympy.Pow) if p.base.has(s) and p.exp.is_Rational and p.exp.q == 2}
    polynomials = [base for base in under if base.is_polynomial(s)]
    if polynomials and flow.coefficients_known:
        degree = _odd_degree(polynomials, s)
        if degree > 2:
            kind = "an elliptic" if degree <= 4 else "a hyperelliptic"
            roots = f"the rate holds square roots of polynomials of total degree {degree}"
            return f"the time is {kind} integral of {s}: {roots}"
    return f"no detector recognises d{s}/d{flow.time} = {flow.rate}"


def _odd_degree(polynomials: Iterable[sympy.Expr], s: sympy.Symbol) -> int:
    """Return the degree of the square-free part of the product: what the root of it is a root of."""
    _, factors = sympy.factor_list(sympy.Mul(*polynomials), s)
    return sum(sympy.degree(factor, s) for factor, multiplicity in factors if multiplicity % 2)


def _closed_form(solved: list[Solved], verified: list[Verification], standard: Standard, t: sympy.Symbol) -> ClosedForm:
    restored = standard.restored
    conditions = dict.fromkeys(replace(c, relation=restored(c.relation)) for part in solved for c in part.conditions)
    return ClosedForm(
        solutions=tuple((restored(p.flow.state), restored(p.solution)) for p in solved if p.solution is not None),
        implicits=tuple((restored(p.flow.state), restored(p.implicit)) for p in solved if p.implicit is not None),
        conditions=tuple(conditions),
        methods=tuple(part.method for part in solved),
        verified=tuple(verified),
        time=t,
        solved=tuple(solved),
        standard=standard,
    )
