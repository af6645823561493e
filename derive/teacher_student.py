"""Teacher–student learning by one-pass SGD: a two-layer student trained on the labels of a two-layer teacher.

Sources: Saad & Solla, Phys. Rev. E 52, 4225 (1995); Goldt et al., NeurIPS 2019 (trained second layer, noise, weight
decay).
"""

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import sympy

from .activation import Activation, activation
from .dynamics import Dynamics, FieldFamily, Quantity
from .errors import ModelError, NotYet, nearest
from .increments import NOISE, D, ScalarUpdate, VectorUpdate
from .limits import ETA, ETA_A, KAPPA
from .moments import Univariate
from .pipeline import TrainingStep, derive_dynamics, find_limit
from .text import parse_expression

K = sympy.Symbol("K", integer=True, positive=True)
M = sympy.Symbol("M", integer=True, positive=True)
I, J, KK, N_, M_ = (sympy.Symbol(name, integer=True, positive=True) for name in ("i", "j", "k", "n", "m"))
PHI, Y = sympy.symbols("phi y", real=True)
LOSSES = {"squared": (Y - PHI) ** 2 / 2}


@dataclass(frozen=True, slots=True)
class TeacherStudent:
    """A student committee trained by one-pass SGD on a teacher committee.

    Student φ = s(K) Σ_i a_i g(h_i), target y = Σ_n b_n g̃(h*_n) + σ ζ, local fields h = w·x/√d, inputs x ~ N(0, I_d),
    loss ½(y − φ)², update Δw_i = −(η/√d) ∂ℓ/∂h_i x − (κ/d) w_i and, where the second layer is trained, Δa_i = −(η_a/d)
    ∂ℓ/∂a_i − (κ/d) a_i.

    Parameters
    ----------
    activation : str, sympy.Expr, callable or Activation
        g; ``"erf"`` means erf(h/√2). See :func:`effdyn.derive.activation`.
    teacher_activation : optional
        g̃; the student's by default.
    loss : str
        ``"squared"``.
    second_layer : {"fixed", "trained"}
        Whether ``a`` is a parameter or a state.
    output_scale : number, str or sympy.Expr
        s, an expression of K such as ``"1/K"`` or ``"1/sqrt(K)"``. The teacher's output is not scaled.
    weight_decay : bool
        Whether weights decay by κ/d a step (κ is not multiplied by η; Goldt et al.'s convention).
    momentum, batch :
        Not available yet.

    Raises
    ------
    ModelError
        If an argument does not state a model.
    NotYet
        For options that are designed but not there yet.

    Examples
    --------
    >>> model = TeacherStudent(activation="erf", second_layer="trained")
    >>> model
    TeacherStudent(activation='erf', second_layer='trained')
    >>> [q.name for q in model.dynamics().parameters]
    ['eta', 'eta_a', 'sigma', 'T', 'b']
    """

    activation: Any = "erf"
    teacher_activation: Any = None
    loss: str = "squared"
    second_layer: str = "fixed"
    output_scale: Any = 1
    weight_decay: bool = False
    momentum: Any = field(default=None, compare=False)
    batch: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("activation", activation(self.activation))
        put(
            "teacher_activation",
            self.activation
            if self.teacher_activation is None
            else activation(self.teacher_activation, "teacher_activation"),
        )
        if self.momentum is not None:
            raise NotYet("momentum=", "SGD without momentum; leave the argument out")
        if self.batch != 1:
            raise NotYet("batch=", "one fresh example a step, batch=1")
        if self.loss not in LOSSES:
            raise (
                NotYet(f"loss={self.loss!r}", "loss='squared', meaning ½(y − φ)²")
                if isinstance(self.loss, str)
                and self.loss in ("logistic", "hinge", "exponential", "huber", "correlation")
                else ModelError("loss", self.loss, f"'squared'{nearest(str(self.loss), LOSSES)}")
            )
        if self.second_layer not in ("fixed", "trained"):
            raise ModelError(
                "second_layer",
                self.second_layer,
                f"'fixed' or 'trained'{nearest(str(self.second_layer), ('fixed', 'trained'))}",
            )
        if not isinstance(self.weight_decay, bool):
            raise ModelError("weight_decay", self.weight_decay, "True or False; its strength is the parameter kappa")
        put("output_scale", _output_scale(self.output_scale))

    @property
    def trains_second_layer(self) -> bool:
        """Whether ``a`` is a state."""
        return self.second_layer == "trained"

    def dynamics(self, limit: str = "high-dimensional") -> Dynamics:
        """Derive the closed equations of motion of the overlaps.

        Parameters
        ----------
        limit : {"high-dimensional", "gradient-flow"}
            ``"high-dimensional"``: d → ∞ at fixed η, with t = steps/d. ``"gradient-flow"``: then η → 0, with t =
            η·steps/d.

        Returns
        -------
        Dynamics
            States ``Q`` (K, K), ``R`` (K, M) and, where trained, ``a`` (K,); observables ``eg``, ``loss`` and cosines.

        Raises
        ------
        NoClosedForm
            If a Gaussian expectation that it needs has no closed form.
        ModelError
            For an unknown limit.

        Examples
        --------
        >>> dyn = TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
        >>> dyn.clock
        'eta*steps/d'
        """
        return _derive(self, limit)

    def training_step(self) -> TrainingStep:
        """Return the update rule as data: its fields, order parameters and parameters, whatever the activations."""
        return training_step(self)

    def to_json(self) -> str:
        """Return the model as JSON text, which :func:`effdyn.derive.model_from_json` reads."""
        from .export.serialize import model_to_json

        return model_to_json(self)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that differ from their defaults, as plain text, numbers and booleans."""
        plain = {
            "activation": _plain(self.activation),
            "teacher_activation": None
            if self.teacher_activation == self.activation
            else _plain(self.teacher_activation),
            "loss": self.loss,
            "second_layer": self.second_layer,
            "output_scale": int(self.output_scale) if self.output_scale.is_Integer else str(self.output_scale),
            "weight_decay": self.weight_decay,
        }
        defaults = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in plain.items() if name == "activation" or value != defaults[name]}

    def __repr__(self) -> str:
        return f"TeacherStudent({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"


def _plain(g: Activation) -> str:
    return g.name or sympy.sstr(g.expr, full_prec=True)


def _output_scale(given: Any) -> sympy.Expr:
    if isinstance(given, str):
        given = parse_expression(given, "output_scale", {"K": K})
    elif isinstance(given, sympy.Expr):
        given = given.subs({s: K for s in given.free_symbols if s.name == "K"})
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        given = sympy.Rational(str(given)) if math.isfinite(given) else sympy.sympify(given)
    usable = isinstance(given, sympy.Expr) and not given.has(sympy.nan, sympy.oo, -sympy.oo, sympy.zoo) and given != 0
    if not usable or given.free_symbols - {K}:
        raise ModelError(
            "output_scale", given, "a number other than 0, or an expression of K alone such as '1/K' or '1/sqrt(K)'"
        )
    return given


Q_ = Quantity(
    "Q", (I, KK), (K, K), "Q", "student–student overlaps w_i·w_k/d", symmetric=True, dims=("student", "student_2")
)
R_ = Quantity("R", (I, N_), (K, M), "R", "student–teacher overlaps w_i·w*_n/d", dims=("student", "teacher"))
T_ = Quantity(
    "T", (N_, M_), (M, M), "T", "teacher–teacher overlaps w*_n·w*_m/d", symmetric=True, dims=("teacher", "teacher_2")
)
A_ = Quantity("a", (I,), (K,), "a", "student's second layer", dims=("student",))
B_ = Quantity("b", (N_,), (M,), "b", "teacher's second layer", dims=("teacher",))
SCALARS = {
    "eta": Quantity("eta", latex=r"\eta", meaning="learning rate", minimum=0.0),
    "eta_a": Quantity("eta_a", latex=r"\eta_a", meaning="learning rate of the second layer", minimum=0.0),
    "kappa": Quantity("kappa", latex=r"\kappa", meaning="weight decay: weights shrink by κ/d a step", minimum=0.0),
    "sigma": Quantity("sigma", latex=r"\sigma", meaning="standard deviation of the label noise", minimum=0.0),
}
H, H_STAR = sympy.IndexedBase("h", real=True), sympy.IndexedBase("h_star", real=True)
COVARIANCE = (
    (("h", "h"), sympy.Lambda((I, KK), Q_.symbol)),
    (("h", "h_star"), sympy.Lambda((I, N_), R_.symbol)),
    (("h_star", "h_star"), sympy.Lambda((N_, M_), T_.symbol)),
)


@lru_cache(maxsize=64)
def _derive(model: TeacherStudent, limit: str) -> Dynamics:
    return derive_dynamics(training_step(model), find_limit(limit), model)


def training_step(model: TeacherStudent) -> TrainingStep:
    """Return the update rule of the model as data."""
    g = Univariate.of("g", model.activation)
    g_star = g if model.teacher_activation == model.activation else Univariate.of("g_star", model.teacher_activation)
    a, b, sigma = A_.base, B_.base, SCALARS["sigma"].base
    phi = model.output_scale * sympy.Sum(a[J] * g(H[J]), (J, 1, K))
    target = sympy.Sum(b[N_] * g_star(H_STAR[N_]), (N_, 1, M))
    y = target + sigma * NOISE
    loss = LOSSES[model.loss]

    def descent(parameter: sympy.Indexed) -> sympy.Expr:
        """−∂ℓ/∂(parameter) by the chain rule through φ."""
        error = -sympy.diff(loss, PHI).subs({PHI: phi, Y: y}, simultaneous=True)
        return error * differentiate_sum(phi, parameter)

    keep = 1 - KAPPA / D if model.weight_decay else sympy.S.One

    def student(index: sympy.Symbol) -> VectorUpdate:
        return VectorUpdate(H[index], keep, ETA * descent(H[index]))

    teacher = VectorUpdate(H_STAR[N_], sympy.S.One, sympy.S.Zero)
    train_a = model.trains_second_layer
    update_a = ScalarUpdate(a[I], keep, ETA_A * descent(a[I]))
    names = ["eta", *(["eta_a"] if train_a else []), *(["kappa"] if model.weight_decay else []), "sigma"]
    x, phi_, y_, ell = (sympy.Symbol(s) for s in ("x", "phi", "y", "ell"))
    weight = sympy.IndexedBase("w")[I]
    definitions: list[tuple[sympy.Basic, sympy.Expr]] = [
        (phi_, phi),
        (y_, y),
        (ell, loss),
        (sympy.Function("Delta")(weight), (keep - 1) * weight + student(I).kick / sympy.sqrt(D) * x),
    ]
    if train_a:
        definitions.append((sympy.Function("Delta")(a[I]), (keep - 1) * a[I] + update_a.kick / D))
    return TrainingStep(
        title=_title(model),
        families=(FieldFamily(H, K, "h"), FieldFamily(H_STAR, M, r"h^{\star}")),
        covariance=COVARIANCE,
        overlaps=((Q_, student(I), student(KK)), (R_, student(I), teacher)),
        scalars=((A_, update_a),) if train_a else (),
        parameters=(*(SCALARS[name] for name in names), T_, *(() if train_a else (A_,)), B_),
        averages=(
            (
                Quantity("eg", latex=r"\epsilon_g", meaning="generalisation error E[½(y* − φ)²], noise-free"),
                loss.subs({PHI: phi, Y: target}, simultaneous=True),
            ),
            (
                Quantity("loss", latex=r"\langle\ell\rangle", meaning="expected loss, label noise included"),
                loss.subs({PHI: phi, Y: y}, simultaneous=True),
            ),
        ),
        formulas=(
            (
                Quantity(
                    "cosine",
                    (I, N_),
                    (K, M),
                    r"\rho",
                    "cosine of the angle between student and teacher vectors",
                    dims=("student", "teacher"),
                ),
                R_.symbol / sympy.sqrt(Q_.base[I, I]) / sympy.sqrt(T_.base[N_, N_]),
            ),
            (
                Quantity(
                    "cosine_students",
                    (I, KK),
                    (K, K),
                    r"\varrho",
                    "cosine of the angle between student vectors",
                    symmetric=True,
                    dims=("student", "student_2"),
                ),
                Q_.symbol / sympy.sqrt(Q_.base[I, I]) / sympy.sqrt(Q_.base[KK, KK]),
            ),
        ),
        definitions=tuple(definitions),
        assumptions=(
            "inputs x ~ N(0, I_d), independent of each other and each seen once (one-pass SGD)",
            "local fields are jointly Gaussian given the weights, exactly",
        ),
    )


def differentiate_sum(expr: sympy.Expr, variable: sympy.Indexed) -> sympy.Expr:
    """Return ∂ expr/∂ variable where expr holds sums over the variable's index: Σ_j f_j δ_ij = f_i."""
    derivative = sympy.diff(expr, variable)

    def collapse(summand: sympy.Expr, limits: sympy.Tuple) -> sympy.Expr:
        index = limits[0]
        deltas = [d for d in summand.atoms(sympy.KroneckerDelta) if index in d.args]
        if not deltas:
            return sympy.Sum(summand, limits)
        (other,) = set(deltas[0].args) - {index}
        return summand.subs(index, other)

    return derivative.replace(sympy.Sum, collapse)


def _title(model: TeacherStudent) -> str:
    g, g_star = _plain(model.activation), _plain(model.teacher_activation)
    pair = f"{g} student and teacher" if g == g_star else f"{g} student, {g_star} teacher"
    layers = "both layers trained" if model.trains_second_layer else "first layer trained"
    return f"One-pass SGD, {pair}, {layers}"
