"""Averages over the fresh example: what stands in an equation becomes expectations over Gaussian local fields.

An expression that multiplies out is averaged term by term, each term one :class:`Moment` with a form of its own. One
that does not (a non-linear function of a committee's output), or whose moments have no form, is averaged as it stands,
over all fields at once: a :class:`Joint`. Knows nothing of any particular model, nor of limits.
"""

import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sympy

from .activation import Activation, X
from .errors import ModelError, NoClosedForm, nearest
from .gaussian.regular import PROBE, regular
from .gradients import Overlap, along_both, stretched
from .increments import LENGTH, NOISE, NORM, D, overlap_of
from .moments import Dilation, Joint, Moment, Pair, Univariate, Value
from .numerical.quadrature import KINKS, LEADING
from .terms import NotPolynomial, Term, collect_terms, expand_terms, fresh_index

if TYPE_CHECKING:
    from .block_inputs import Parts

LABEL = sympy.Symbol("y_sign", real=True)
"""A label ±1 of the fresh example, random given the fields."""
METHODS = ("auto", "closed", "numeric")
MAX_NOISE_POWER = 12
LONGEST = 2000
"""Operations from which on a rule over all fields is better than conditioning on a few."""


@dataclass(frozen=True, slots=True)
class Example:
    """What is random in a fresh example, and how to average over it.

    Attributes
    ----------
    fields : tuple of IndexedBase
        The local fields.
    shifted : bool
        Whether any of them has a mean.
    label : Expr or None
        The mean of the label ±1 given the fields, if labels are ±1.
    written_out : tuple of (Indexed, Expr)
        The fields that are combinations of others, and which.
    method : {"auto", "closed", "numeric"}
        ``"closed"`` takes closed forms only; ``"numeric"`` averages everything over all fields at once; ``"auto"``
        takes closed forms where there are any, else rules over one or two fields, else all fields at once.
    outer : int
        The largest number of fields over which ``"auto"`` takes a rule term by term.
    along_weights : tuple of ((str, str), Lambda)
        The covariance of the parts of the fields that are inner products with the input: without label noise.
    mean : tuple of (str, Lambda)
        The means of those families that have one.
    noisy : frozenset of str
        The families that contain label noise.
    idle : tuple of IndexedBase
        Fields on which no function depends, such as those of momentum buffers.
    relaxing : tuple of IndexedBase
        Those of them that are of order d^(−1/2): of buffers that relax within a few steps.
    parts : Parts or None
        How to average over the parts of the input in blocks of its covariance, if vectors are seen by block.
    center : Indexed or None
        The field μ·x of the inputs' mean μ, among the idle ones, if they have one.
    """

    fields: tuple[sympy.IndexedBase, ...]
    shifted: bool = False
    label: sympy.Expr | None = None
    written_out: tuple[tuple[sympy.Indexed, sympy.Expr], ...] = ()
    method: str = "auto"
    outer: int = 2
    along_weights: tuple[tuple[tuple[str, str], sympy.Lambda], ...] = ()
    mean: tuple[tuple[str, sympy.Lambda], ...] = ()
    noisy: frozenset[str] = frozenset()
    idle: tuple[sympy.IndexedBase, ...] = ()
    relaxing: tuple[sympy.IndexedBase, ...] = ()
    parts: "Parts | None" = None
    center: sympy.Indexed | None = None

    def overlap(self, f: sympy.Indexed, g: sympy.Indexed) -> sympy.Expr:
        """Return the inner product of the vectors behind two fields, over d."""
        return overlap_of(f, g, dict(self.along_weights))

    def mean_of(self, field: sympy.Indexed) -> sympy.Expr:
        """Return the mean of a field."""
        law = dict(self.mean).get(str(field.base))
        return law(field.indices[0]) if law else sympy.S.Zero


def check_method(given: object) -> str:
    """Return ``moments=`` of a model's dynamics, checked."""
    if given not in METHODS:
        raise ModelError("moments", given, f"one of {', '.join(map(repr, METHODS))}{nearest(str(given), METHODS)}")
    return str(given)


def take_expectations(expr: sympy.Expr, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    """Return E[expr] over the fresh example, as terms whose only factor is a :class:`Moment` or a :class:`Joint`.

    The label noise is independent of the fields, E[ζ^p] = (p−1)!! for even p and 0 for odd; a label ±1 has y² = 1 and a
    mean given the fields. The length of the input is not independent: E[χ G] = E[G] + (2/d) ∂_s E_{sΩ}[G].

    Raises
    ------
    NoClosedForm
        With ``method="closed"``, if an expectation has none.
    """
    terms = [term for part in sympy.Add.make_args(expr) for term in _average(part, free, example)]
    return collect_terms(terms, free)


def resolve_dilations(terms: list[Term], free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    """Return terms with each ∂_s E_{sΩ}[G] as expectations that have forms of their own.

    Raises
    ------
    NoClosedForm
        If one of them has none.
    NotYet
        For a function with kinks of all fields at once.
    """
    resolved = [r for term in terms for r in stretched(term, _stretch(term, example), example.mean_of, example.noisy)]
    return collect_terms([term for term in resolved if not _vanishes(term, example)], free)


def _stretch(term: Term, example: Example) -> Overlap:
    """Return what is stretched of the covariance of two fields: all, or what one block of the inputs adds to it."""
    blocks = [f.args[1] for f in term.factors if isinstance(f, Dilation) and len(f.args) > 1]
    if not blocks:
        return example.overlap
    assert example.parts is not None
    return example.parts.covariance(blocks[0])


def _average(part: sympy.Expr, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    if pairs := part.atoms(Pair):
        (pair,) = pairs
        return _average_pair(part.xreplace({pair: sympy.S.One}), pair, free, example)
    if idle := [f for f in sympy.Mul.make_args(part) if isinstance(f, sympy.Indexed) and f.base in example.idle]:
        (field,) = idle  # a linear function of x: E[F h] = E[F x]·E[h x]
        found = _average_pair(sympy.S.One, Pair(part / field, field), free, example)
        if any(f.has(Pair) for term in found for f in term.factors) and field.base not in example.relaxing:
            return jointly(part, free, replace(example, fields=(*example.fields, field.base)))
        return found
    if example.method == "numeric":
        return jointly(part, free, example)
    try:
        terms = [term for term in term_by_term(part, free, example) if not _vanishes(term, example)]
    except NotPolynomial as reason:
        if example.method == "closed":
            raise _not_polynomial(reason) from None
        return jointly(part, free, example)
    except NoClosedForm:
        if example.method == "closed":
            raise
        return jointly(part, free, example)
    return terms


def _average_pair(weight: sympy.Expr, pair: Pair, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    """Return the average over two independent examples; unaveraged if it has no moments of its own term by term.

    There is no rule over all fields at once for it: rules over one or two are taken whatever ``example`` prefers.
    """
    example = replace(example, outer=max(example.outer, 2))
    try:
        first, second = ([_without_noise(t) for t in _label_averaged(f, free, example)] for f in pair.args[:2])
        overlap = example.parts.overlap(pair.args[2]) if example.parts and len(pair.args) > 2 else example.overlap
        found = along_both(filter(None, first), filter(None, second), overlap, free, example.center, example.idle)
        terms = [replace(t, coefficient=weight * t.coefficient) for term in found for t in _unfolded(term, free)]
        return [term for term in terms if not _vanishes(term, example)]
    except (NotPolynomial, NoClosedForm):
        return [_unaveraged(weight, pair, example)]


def _unfolded(term: Term, free: tuple[sympy.Symbol, ...]) -> list[Term]:
    """Return a term with overlaps of a combination that are of order 1/d one by one, so that their order is seen."""
    if not any(total.has(D) for total in term.coefficient.atoms(sympy.Sum)):
        return [term]
    taken = (*free, *(index for index, _ in term.indices))
    parts = expand_terms(term.coefficient, taken, ())
    return [replace(term, coefficient=part.coefficient, indices=term.indices + part.indices) for part in parts]


def _unaveraged(weight: sympy.Expr, pair: Pair, example: Example) -> Term:
    """Return a pair as it is, with what is not random in it, such as rates, outside: by that it is ordered.

    The average of a function and a relaxing field is of order 1/d; in the pair that field is in units of d^(−1/2).
    """
    if isinstance(pair.args[1], sympy.Indexed) and pair.args[1].base in example.relaxing:
        weight /= D
    random = []
    for part in pair.args[:2]:
        idle = isinstance(part, sympy.Indexed) and part.base in example.idle
        outside, inside = (sympy.S.One, part) if idle else _split(part, example)
        weight *= outside
        random.append(inside)
    return Term(weight, (), (Pair(*random, *pair.args[2:]),))


def _not_polynomial(reason: NotPolynomial) -> NoClosedForm:
    return NoClosedForm(
        f"E[{reason.args[0].split(' is not')[0]} …]",
        "a function of a sum over units is not a product of functions of one field each",
        'It will be computed numerically, over all fields at once, with moments="auto" (the default) or "numeric".',
    )


def _vanishes(term: Term, example: Example) -> bool:
    """Return whether a term's moment is identically zero, having checked that it can be computed at all."""
    return any(check_computable(f, example) == 0 for f in term.factors if isinstance(f, Moment))


def check_computable(moment: Moment, example: Example) -> sympy.Expr:
    """Return the form of a moment; raise NoClosedForm, with the functions called as they print, if it has none.

    Raises
    ------
    NoClosedForm
        If the rules give no form for it, or none that ``example.method`` allows.
    """
    from .gaussian.closed_forms import closed_form
    from .numerical.moment_forms import moment_form

    try:
        if example.method == "closed":
            return closed_form(moment.signature, example.shifted)[0]
        form = moment_form(moment.signature, example.shifted)
        if form.exact and not _is_regular(moment, form.form, form.entries):
            raise NoClosedForm(str(moment), "its form is 0/0 where fields coincide", "")
    except NoClosedForm as error:
        functions = dict.fromkeys(
            f"{f.args[0]}(x) = {f.args[0].function.expr}" for f in moment.args if isinstance(f, Value)
        )
        raise NoClosedForm(str(moment), f"{error.reason}, where {', '.join(functions)}", error.instead) from None
    if not form.exact and any(function(X).has(sympy.DiracDelta) for function in moment.signature):
        raise NoClosedForm(str(moment), "no rule over nodes sees the slope of a jump", "")
    if not form.exact and form.form.count_ops() > LONGEST:
        raise NoClosedForm(str(moment), "its form is longer than a rule over all fields takes", "")
    if form.outer > example.outer:
        raise NoClosedForm(str(moment), f"{form.outer} of its fields would be integrated numerically", "")
    return form.form


def _is_regular(moment: Moment, form: sympy.Expr, entries: dict[tuple[int, ...], sympy.Symbol]) -> bool:
    """Return whether a form has a value at equal indices. Fields with different numbers are different."""
    if len(moment.fields) > len(PROBE) or not any(function(X).has(*KINKS) for function in moment.signature):
        return True
    families: dict[str, list[int]] = {}
    for place, field in enumerate(moment.fields):
        if not field.indices[0].is_number:
            families.setdefault(str(field.base), []).append(place)
    pairs = [pair for same in families.values() for pair in itertools.combinations(same, 2)]
    aligned = [tuple(places) for places in itertools.product(*families.values())] if len(families) > 1 else []
    return regular(form, entries, [*pairs, *map(tuple, families.values()), *aligned])


def term_by_term(expr: sympy.Expr, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    """Return E[expr] multiplied out.

    Raises
    ------
    NotPolynomial
        If it does not multiply out.
    """
    return [term for signed in _label_averaged(expr, free, example) for term in _average_term(signed, example)]


def _label_averaged(expr: sympy.Expr, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    random = (*example.fields, *example.idle, NOISE, NORM, LENGTH, LABEL)
    terms = expand_terms(expr, free, random)
    return [signed for term in terms for signed in _average_label(term, free, example, random)]


def _average_label(
    term: Term, free: tuple[sympy.Symbol, ...], example: Example, random: tuple[sympy.Basic, ...]
) -> list[Term]:
    odd = term.factors.count(LABEL) % 2
    term = Term(term.coefficient, term.indices, tuple(f for f in term.factors if f != LABEL))
    if not odd:
        return [term]
    return [term.times(mean, free) for mean in expand_terms(example.label, free, random)]


def _average_term(term: Term, example: Example) -> list[Term]:
    quiet = _without_noise(term)
    if quiet is None:
        return []
    lengths = _lengths(*quiet.factors)
    rest = tuple(f for f in quiet.factors if f not in lengths)
    moment = (Moment(*rest),) if rest else ()
    mean, slope, block = _mean_length(lengths, example)
    averaged = [replace(quiet, coefficient=mean * quiet.coefficient, factors=moment)]
    if rest and lengths:
        averaged.append(Term(2 * slope * quiet.coefficient / D, quiet.indices, (Dilation(*moment, *block),)))
    return averaged


def _lengths(*expressions: sympy.Expr) -> list[sympy.Expr]:
    """Return the squared lengths of the input, or of its part in a block, that stand in expressions."""
    atoms = [e for one in expressions for e in one.atoms(sympy.Symbol, sympy.Indexed)]
    return [e for e in atoms if e == NORM or (isinstance(e, sympy.Indexed) and e.base == LENGTH)]


def _mean_length(lengths: list[sympy.Expr], example: Example) -> tuple[sympy.Expr, sympy.Expr, tuple[sympy.Expr, ...]]:
    """Return the mean of |x|²/d, by what its dilation is multiplied, and the block that is stretched.

    In a block x^g ~ N(0, λ_g I) has π_g d components, and E[x^g·x^g G] = λ_g (π_g d + 2 ∂_{s_g}) E[G] (Stein's lemma).
    """
    if not lengths or lengths[0] == NORM:
        return sympy.S.One, sympy.S.One, ()
    assert example.parts is not None
    block = lengths[0].indices[0]
    return example.parts.length(block), example.parts.variance(block), (block,)


def _without_noise(term: Term) -> Term | None:
    """Return a term averaged over the label noise, functions of one numbered field as one; None if it vanishes."""
    noise = term.factors.count(NOISE)
    if noise % 2:
        return None
    weight = term.coefficient * (sympy.factorial2(noise - 1) if noise else 1)
    return Term(weight, term.indices, merge_numbered(tuple(f for f in term.factors if f != NOISE)))


def merge_numbered(factors: tuple[sympy.Expr, ...]) -> tuple[sympy.Expr, ...]:
    """Return factors with the functions of one numbered field, h*_1 or the output φ, as one function of it.

    Functions of fields with symbols as indices stay apart: whether h_i and h_k are one field is a matter of numbers.

    Examples
    --------
    >>> h = sympy.IndexedBase("h")
    >>> sign = Univariate.of("sign", Activation(sympy.sign(X)))
    >>> merge_numbered((sign(h[1]), sign(h[1]), h[2]))
    (h[2],)
    """
    functions: dict[sympy.Expr, list[Univariate]] = {}
    rest = []
    for factor in factors:
        if isinstance(factor, Value) and factor.args[1].indices[0].is_number:
            functions.setdefault(factor.args[1], []).append(factor.args[0])
        else:
            rest.append(factor)
    products = (_product(univariates)(field) for field, univariates in functions.items() if not _is_one(univariates))
    return (*rest, *products)


def _is_one(univariates: list[Univariate]) -> bool:
    """Return whether a product is that of an even number of signs, which is 1 almost everywhere."""
    return len(univariates) % 2 == 0 and all(u.function(X) == sympy.sign(X) for u in univariates)


def _product(univariates: list[Univariate]) -> Univariate:
    """Return the product of functions: of ψ₀ and ψ₁ it prints as ψ₀₁."""
    if len(univariates) == 1:
        return univariates[0]
    function = sympy.Mul(*(u.function(X) for u in univariates))
    signs = {sympy.sign(X) ** n: sympy.sign(X) ** (n % 2) for n in range(2, len(univariates) + 1)}
    names = sorted(str(u) for u in univariates)
    bases = {name.rpartition("_")[0] for name in names}
    if len(bases) == 1 and all(name.rpartition("_")[2].isdigit() for name in names):
        symbol = f"{bases.pop()}_{''.join(name.rpartition('_')[2] for name in names)}"
    else:
        symbol = f"p_{''.join(re.sub('[^A-Za-z0-9]', '', name) for name in names)}"
    return Univariate.of(symbol, Activation(function.xreplace(signs)))


def jointly(part: sympy.Expr, free: tuple[sympy.Symbol, ...], example: Example) -> list[Term]:
    """Return E[part] over all fields at once: what is random in it stays one expression."""
    if not is_random(part, example):
        return [Term(part)]
    coefficient, random = _split(part, example)
    lengths = _lengths(random)
    mean, slope, block = _mean_length(lengths, example)
    random = write_out(average_label(random.subs(dict.fromkeys(lengths, 1)), example.label), example)
    average = rename_bound(average_noise(random), free)
    if not is_random(average, example):
        return [Term(mean * coefficient * average)]
    terms = [Term(mean * coefficient, (), (Joint(average),))]
    if lengths:
        terms.append(Term(2 * slope * coefficient / D, (), (Dilation(Joint(average), *block),)))
    return terms


def write_out(expr: sympy.Expr, example: Example) -> sympy.Expr:
    """Return an expression in the fields of weight vectors: combinations of fields as the sums that they are.

    The output of a linear teacher stays: it leads the fields of the rule, so that the jump of its sign is seen.
    """
    combinations = {field: sum_ for field, sum_ in example.written_out if field.base != LEADING}

    def value(e: sympy.Expr) -> sympy.Expr:
        univariate, field = e.args
        return univariate.function(combinations[field]) if field in combinations else e

    return expr.replace(Value, lambda *args: value(Value(*args))).xreplace(combinations)


def rename_bound(expr: sympy.Expr, free: tuple[sympy.Symbol, ...]) -> sympy.Expr:
    """Return an expression whose summation indices have other names than the free ones."""
    if not expr.args or isinstance(expr, sympy.Indexed):
        return expr
    expr = expr.func(*(rename_bound(argument, free) for argument in expr.args))
    clashes = [limit for limit in expr.limits if limit[0] in free] if isinstance(expr, sympy.Sum) else []
    for index, _, size in clashes:
        expr = expr.xreplace({index: fresh_index(size, {*free, *expr.atoms(sympy.Symbol)})})
    return expr


def is_random(expr: sympy.Expr, example: Example) -> bool:
    """Return whether an expression depends on the fresh example."""
    return expr.has(NOISE, NORM, LENGTH, LABEL, *example.fields)


def _split(part: sympy.Expr, example: Example) -> tuple[sympy.Expr, sympy.Expr]:
    """Return the factors of a product that are not random, and those that are."""
    factors = sympy.Mul.make_args(part)
    random = [f for f in factors if is_random(f, example)]
    return sympy.Mul(*(f for f in factors if f not in random)), sympy.Mul(*random)


def average_label(expr: sympy.Expr, mean: sympy.Expr | None) -> sympy.Expr:
    """Return the average over a label ±1 of given mean: ½(1 + ȳ) G(1) + ½(1 − ȳ) G(−1)."""
    if not expr.has(LABEL):
        return expr
    assert mean is not None
    plus, minus = expr.subs(LABEL, 1), expr.subs(LABEL, -1)
    return (1 + mean) / 2 * plus + (1 - mean) / 2 * minus


def average_noise(expr: sympy.Expr) -> sympy.Expr:
    """Return the average over the label noise where it enters as a polynomial, by its Taylor series; else ``expr``.

    Where it enters another function, such as one with kinks or pieces, it is no polynomial, whatever its derivatives
    are; those of tanh would grow for minutes.

    Examples
    --------
    >>> a = sympy.Symbol("a")
    >>> average_noise((a + NOISE) ** 2)
    a**2 + 1
    """
    if any(function.has(NOISE) for function in expr.atoms(sympy.Function, *KINKS)):
        return expr
    total, derivative = sympy.S.Zero, expr
    for power in range(MAX_NOISE_POWER + 1):
        if derivative == 0:
            return total
        if power % 2 == 0:
            total += derivative.subs(NOISE, 0) / sympy.factorial2(power)  # (p−1)!!/p! = 1/p!!
        derivative = sympy.diff(derivative, NOISE)
    return expr
