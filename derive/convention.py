"""Conventions: the same network, update and order parameters in the letters, scales and clocks of other papers.

A :class:`Convention` is plain data: how a paper writes its output, its fields, its update and its time. The relations
between its quantities and effdyn's follow from that by the chain rule; none is stated twice. Knows no particular paper:
those are in :mod:`effdyn.derive.known_conventions`. Equations are converted in :mod:`effdyn.derive.converted`, numbers
in :mod:`effdyn.derive.converted_numbers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import sympy

from .dynamics import scalar
from .errors import ModelError, nearest
from .teacher_student import TeacherStudent
from .text import parse_expression

if TYPE_CHECKING:
    from .dynamics import Dynamics

STEPS = sympy.Symbol("steps", real=True)
SIZES = ("K", "M")
UNCHANGED = ("batch", "beta", "flip", "cosine", "cosine_students", "error_rate")
"""What means the same whatever the scales: numbers of examples, shares, probabilities, angles."""
FORMULAS = (
    *("output_scale", "teacher_scale", "field_scale", "normalisation", "learning_rate", "second_learning_rate"),
    *("decay", "noise", "loss_factor", "error_factor", "clock"),
)
_FORMULA_OF = {"learning_rate": "eta", "second_learning_rate": "eta_a", "decay": "kappa", "noise": "sigma"}
_POSITIVE = ("eta", "eta_a", "kappa", "sigma", "d")


@dataclass(frozen=True, slots=True)
class Relation:
    """``ours = factor · theirs**power``; ``theirs`` is empty where the paper has a constant instead."""

    ours: str
    theirs: str
    factor: sympy.Expr
    power: sympy.Expr = sympy.S.One


@dataclass(frozen=True, slots=True)
class Convention:
    r"""How a paper writes teacher–student SGD, as formulas in the paper's own letters.

    Its student is φ = s Σ_j a_j g(c λ_j), its teacher s* Σ_r b_r g̃(c λ*_r), with fields λ = w·x/ν of inputs x ~ N(0,
    I_d), its loss f times effdyn's, and its update w ← (1 − decay) w − learning_rate ∂ℓ/∂w. Its overlaps are
    covariances of its fields.

    Parameters
    ----------
    name, title, source : str
        What it is looked up by, who, and where.
    names : tuple of (str, str)
        effdyn's names (``Q``, ``R``, ``T``, ``a``, ``b``, ``eta``, ``eta_a``, ``kappa``, ``sigma``, ``eg``, ``loss``,
        ``K``, ``M``, ``d``) and the paper's. ``a`` or ``b`` without a name are 1; what else has no name is not in the
        paper.
    output_scale, teacher_scale : str
        s and s*.
    field_scale : str
        c, the argument of the activation: √2 for a paper with erf(λ), where effdyn has erf(h/√2) at h = cλ.
    normalisation : str
        ν: ``"sqrt(d)"`` where weights have length O(√d), ``"1"`` where they have length O(1).
    learning_rate, second_learning_rate : str
        The factors of −∂ℓ/∂w and of −∂ℓ/∂a in one step.
    decay : str
        The share of the weights that one step takes away.
    noise : str
        The *standard deviation* of the label noise: ``"sqrt(Delta)"`` where the paper states a variance.
    loss_factor, error_factor : str
        f, the paper's loss over effdyn's (½(y − φ)² or another), and its generalisation error over E[½(y* − φ)²].
    clock : str
        The paper's time, as a function of ``steps``.
    indices : tuple of (str, str)
        Index letters that differ: effdyn has i, k, j, l for students and n, m for teachers.
    letters : tuple of (str, str)
        How names print in LaTeX; ``"h"`` and ``"h_star"`` are the fields.
    checked : str
        What these facts were checked against.

    Raises
    ------
    ModelError
        For a formula that does not parse or does not have the form that it must, or a name that means two things.

    Examples
    --------
    >>> from effdyn.derive.known_conventions import CONVENTIONS
    >>> paper = CONVENTIONS["arnaboldi-2023"]
    >>> y0, params, t = paper.to_effdyn(
    ...     dict(Q=[[1.0, 0.0], [0.0, 1.0]], M=[[0.1], [0.2]]), dict(gamma=0.5, Delta=0.04, P=[[1.0]]), 3.0
    ... )
    >>> params["eta"], round(params["sigma"], 12), params["a"], t
    (0.5, 0.2, 0.5, 12.0)
    """

    name: str
    title: str
    source: str
    names: tuple[tuple[str, str], ...]
    output_scale: str = "1"
    teacher_scale: str = "1"
    field_scale: str = "1"
    normalisation: str = "sqrt(d)"
    learning_rate: str = "eta"
    second_learning_rate: str = "eta_a/d"
    decay: str = "kappa/d"
    noise: str = "sigma"
    loss_factor: str = "1"
    error_factor: str = "1"
    clock: str = "steps/d"
    indices: tuple[tuple[str, str], ...] = ()
    letters: tuple[tuple[str, str], ...] = ()
    checked: str = ""

    def __post_init__(self) -> None:
        known = {*_SCALED, *_RATES, *_VALUES, *SIZES, "d"}
        for ours, theirs in self.names:
            if ours not in known:
                raise ModelError("names", ours, f"effdyn's names {', '.join(sorted(known))}{nearest(ours, known)}")
            if not theirs.isidentifier():
                raise ModelError(f"names[{ours!r}]", theirs, "an identifier, such as 'gamma_0'")
        students_and_teachers = [dict(self.indices).get(i, i) for i in "ikjlnm"]
        used = [*students_and_teachers, *(self.named(q) for q in (*SIZES, "d")), *self._quantities()]
        if twice := sorted({name for name in used if used.count(name) > 1}):
            raise ModelError("names", twice[0], "a letter of its own for each quantity, size and index")
        if self.named("d") != "d" and self.symbol("d") in self.formula_letters():
            raise ModelError("names['d']", self.named("d"), "formulas in which d does not occur under its old name")
        self.relations(sympy.S.One)
        if STEPS in self.time_ratio().free_symbols:
            raise ModelError("clock", self.clock, "a number of steps times something, such as 'steps/d'")

    def named(self, ours: str) -> str:
        """Return the paper's name of one of effdyn's quantities; its own, where that is not said."""
        return dict(self.names).get(ours, ours)

    def printed(self, name: str, default: str | None = None) -> str:
        """Return a name in LaTeX: as ``letters`` have it, as given, or as SymPy spells it."""
        return dict(self.letters).get(name, default or sympy.latex(sympy.Symbol(name)))

    def symbol(self, name: str) -> sympy.Symbol:
        """Return what stands for a name of the paper in expressions."""
        if name == "steps":
            return STEPS
        if name in map(self.named, SIZES):
            return sympy.Symbol(name, integer=True, positive=True)
        positive = name in {self.named(q) for q in _POSITIVE}
        return scalar(name, 0.0 if positive else None)

    def formula(self, argument: str) -> sympy.Expr:
        """Return one of its formulas as an expression."""
        expr = parse_expression(str(getattr(self, argument)), argument)
        return expr.xreplace({s: self.symbol(s.name) for s in expr.free_symbols})

    def formula_letters(self) -> set[sympy.Symbol]:
        """Return what its formulas are made of, but for ``steps``; formulas of what it does not have are left out."""
        without = {argument for argument, q in _FORMULA_OF.items() if q not in dict(self.names)}
        used = (argument for argument in FORMULAS if argument not in without)
        return {s for argument in used for s in self.formula(argument).free_symbols} - {STEPS}

    def relations(self, output_scale: sympy.Expr) -> dict[str, Relation]:
        """Return effdyn's quantities in terms of the paper's, for a model of that output scale, an expression of K.

        With h = cλ and w = (c√d/ν) w', the chain rule turns −(learning rate) ∂(fℓ)/∂w' into effdyn's step with η = f
        c² d/ν² times that rate; and the second layer, a = (s'/s) a', likewise.
        """
        size = sympy.Symbol("K", integer=True, positive=True)
        shrink = self.formula("output_scale") / output_scale.xreplace({size: self.symbol(self.named("K"))})
        field, loss = self.formula("field_scale"), self.formula("loss_factor")
        d = self.symbol(self.named("d"))
        expressions = {
            "eta": field**2 * loss * d / self.formula("normalisation") ** 2 * self.formula("learning_rate"),
            "eta_a": shrink**2 * loss * d * self.formula("second_learning_rate"),
            "kappa": d * self.formula("decay"),
            "sigma": self.formula("noise"),
        }
        scaled = {name: field**2 for name in ("Q", "R", "T")} | {"a": shrink, "b": self.formula("teacher_scale")}
        scaled |= {"eg": 1 / self.formula("error_factor"), "loss": 1 / loss}
        mine = dict(self.names)
        found = {q: Relation(q, mine.get(q, ""), scaled[q]) for q in scaled if q in mine or q in ("a", "b")}
        return found | {q: self._monomial(q, mine[q], expressions[q]) for q in expressions if q in mine}

    def time_ratio(self) -> sympy.Expr:
        """Return the paper's time over effdyn's t = steps/d."""
        return sympy.powsimp(self.formula("clock") * self.symbol(self.named("d")) / STEPS)

    def to_effdyn(
        self, y0: Mapping[str, Any], params: Mapping[str, Any], t: Any = None, model: TeacherStudent | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """Return initial values, parameters and times of the paper as effdyn's, for ``solve`` and ``validate``.

        Parameters
        ----------
        y0, params : mapping
            Numbers and arrays under the paper's names. ``params`` also holds other letters of its formulas (``d``, …),
            which effdyn's equations do not have.
        t : number or array, optional
            Times on the paper's clock; effdyn's are steps/d, η times which is the clock of gradient flow.
        model : TeacherStudent, optional
            Whose output scale the second layer is for; 1 by default.

        Returns
        -------
        y0, params, t
            Under effdyn's names; a second layer that the paper leaves at 1 is put into ``params``.

        Raises
        ------
        ModelError
            For names that the paper does not have, or numbers that are missing.
        """
        from .converted_numbers import numbers_to_effdyn

        return numbers_to_effdyn(self, y0, params, t, model or TeacherStudent())

    def from_effdyn(
        self,
        y0: Mapping[str, Any],
        params: Mapping[str, Any],
        t: Any = None,
        model: TeacherStudent | None = None,
        **known: float,
    ) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """Return effdyn's values, parameters and times as the paper's: the inverse of :meth:`to_effdyn`.

        Parameters
        ----------
        y0, params, t, model
            Under effdyn's names. ``y0`` may hold trajectories, ``dict(Q=sol.Q, eg=sol.eg)``.
        **known
            Other letters of the paper's formulas, such as ``d=1000``; they are put into ``params``.

        Raises
        ------
        ModelError
            For what the paper does not have, or numbers that are missing.
        """
        from .converted_numbers import numbers_from_effdyn

        return numbers_from_effdyn(self, y0, params, t, model or TeacherStudent(), known)

    def convert(self, dynamics: "Dynamics") -> "Dynamics":
        """Return equations of motion of a :class:`TeacherStudent` as the paper writes them: a Dynamics, to be printed
        or solved with the paper's names.

        Raises
        ------
        ModelError
            If they hold what the paper does not have.
        NotYet
            For stochastic equations.

        Examples
        --------
        >>> from effdyn import derive
        >>> from effdyn.derive.known_conventions import CONVENTIONS
        >>> flow = derive.TeacherStudent(activation="erf").dynamics(limit="gradient-flow")
        >>> print(CONVENTIONS["arnaboldi-2023"].convert(flow)["M"])
        -Sum(E[g'(h[j]) h_star[r] g(h[m])], (m, 1, p))/p + Sum(E[g'(h[j]) h_star[r] g(h_star[s])], (s, 1, k))/k
        """
        from .converted import converted

        return converted(self, dynamics)

    def rows(self, text: Callable[[sympy.Expr], str]) -> list[tuple[str, str, str]]:
        """Return the table, one row (what, effdyn's, the paper's) each, the paper's side through ``text``."""
        statements = [
            ("student's output over Σ a g", "output_scale", text(self.formula("output_scale"))),
            ("teacher's output over Σ b g", "1", text(self.formula("teacher_scale"))),
            ("argument of g over field", "1", text(self.formula("field_scale"))),
            ("w·x over field", "sqrt(d)", text(self.formula("normalisation"))),
            ("loss over effdyn's", "1", text(self.formula("loss_factor"))),
            ("step over -∂loss/∂w", "eta", text(self.formula("learning_rate"))),
            ("time", "steps/d", text(self.formula("clock"))),
        ]
        for relation in self.relations(sympy.S.One).values():
            theirs = self.symbol(relation.theirs) if relation.theirs else sympy.S.One
            statements.append(("equal", relation.ours, text(relation.factor * theirs**relation.power)))
        statements += [("equal", q, text(self.symbol(self.named(q)))) for q in (*SIZES, "d") if self.named(q) != q]
        time = sympy.Symbol("t'") / self.time_ratio()
        return [*statements, ("equal", "t", text(time))]

    def latex(self) -> str:
        """Return the table as a LaTeX tabular."""
        letters = {self.symbol(name): letter for name, letter in self.letters} | {STEPS: r"\mathrm{steps}"}

        def text(expr: sympy.Expr) -> str:
            return f"${sympy.latex(expr, symbol_names=letters)}$"

        ours = {name: f"${symbol}$" for name, symbol in _LATEX.items()}
        lines = [
            f"{_text(what)} & {ours.get(here, _text(here))} & {there} \\\\" for what, here, there in self.rows(text)
        ]
        head = rf" & effdyn & {_text(self.title)} \\ \hline"
        return "\n".join((r"\begin{tabular}{lll}", head, *lines, r"\end{tabular}"))

    def _repr_latex_(self) -> str:
        return self.latex()

    def __str__(self) -> str:
        rows = [("", "effdyn", self.title), *self.rows(str)]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        table = [f"{what:<{widths[0]}}  {here:<{widths[1]}}  {there}".rstrip() for what, here, there in rows]
        notes = [self.source, *([f"Checked against: {self.checked}"] if self.checked else [])]
        return "\n".join((*table, *notes))

    def __repr__(self) -> str:
        changed = [f for f in fields(self) if f.default is not getattr(self, f.name)]
        return f"Convention({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

    def _quantities(self) -> list[str]:
        """Return the paper's names of states, parameters and observables, each once."""
        return [theirs for ours, theirs in self.names if ours not in (*SIZES, "d")]

    def _monomial(self, ours: str, theirs: str, expr: sympy.Expr) -> Relation:
        """Return ``ours = expr`` as a relation that can be inverted."""
        symbol = self.symbol(theirs)
        factor, power = sympy.powsimp(expr).as_coeff_exponent(symbol)
        if power == 0 or factor.has(symbol):
            accepted = f"formulas in which effdyn's {ours} is a power of {theirs} times something"
            raise ModelError(f"names[{ours!r}]", theirs, f"{accepted}; it is {expr}")
        return Relation(ours, theirs, factor, power)


_SCALED = ("Q", "R", "T", "a", "b", "eg", "loss")
_RATES = ("eta", "eta_a", "kappa")
_VALUES = ("sigma",)
_LATEX = {
    **{"eta": r"\eta", "eta_a": r"\eta_a", "kappa": r"\kappa", "sigma": r"\sigma", "eg": r"\epsilon_g"},
    **{"loss": r"\langle\ell\rangle", "sqrt(d)": r"\sqrt{d}", "steps/d": r"\mathrm{steps}/d"},
    **{name: name for name in ("Q", "R", "T", "a", "b", "K", "M", "d", "t", "1")},
}


def _text(words: str) -> str:
    """Return words as LaTeX text."""
    replaced = {"Σ a g": r"$\sum a g$", "Σ b g": r"$\sum b g$", "w·x": r"$w \cdot x$", "_": r"\_"}
    replaced |= {"-∂loss/∂w": r"$-\partial \ell / \partial w$", "–": "--"}
    for old, new in replaced.items():
        words = words.replace(old, new)
    return words
