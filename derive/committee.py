"""One step of teacher–student training as data: what the derivation needs to know of a TeacherStudent.

The order parameters and parameters by name, the student's output, the label, the gradient by the chain rule, and what
is random in a fresh example. Knows nothing of Gaussian rules or limits.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sympy

from .activation import Activation, X
from .averages import LABEL
from .block_inputs import on_blocks
from .dynamics import FieldFamily, Quantity
from .increments import NOISE, D, ScalarUpdate, VectorUpdate
from .limits import ETA, ETA_A, ETA_BIAS, KAPPA
from .loss import PHI, Y, decaying_logarithms
from .moments import Univariate
from .output_fields import OUTPUT, RESIDUAL, TARGET, Combination, covariance_of, covariance_with, mean_of
from .pipeline import TrainingStep
from .schedule import PACE, parameters_of
from .shifted_inputs import shifted
from .target import H_STAR, by_values, sign_of_product, target_text

if TYPE_CHECKING:
    from .teacher_student import TeacherStudent

K = sympy.Symbol("K", integer=True, positive=True)
M = sympy.Symbol("M", integer=True, positive=True)
I, J, KK, N_, M_ = (sympy.Symbol(name, integer=True, positive=True) for name in ("i", "j", "k", "n", "m"))
H = sympy.IndexedBase("h", real=True)

Q_ = Quantity(
    "Q", (I, KK), (K, K), "Q", "student–student overlaps w_i·w_k/d", symmetric=True, dims=("student", "student_2")
)
R_ = Quantity("R", (I, N_), (K, M), "R", "student–teacher overlaps w_i·w*_n/d", dims=("student", "teacher"))
T_ = Quantity(
    "T", (N_, M_), (M, M), "T", "teacher–teacher overlaps w*_n·w*_m/d", symmetric=True, dims=("teacher", "teacher_2")
)
A_ = Quantity("a", (I,), (K,), "a", "student's second layer", dims=("student",))
B_ = Quantity("b", (N_,), (M,), "b", "teacher's second layer", dims=("teacher",))
BIAS = Quantity("bias", (I,), (K,), r"\beta", "student's biases", dims=("student",))
TEACHER_BIAS = Quantity("teacher_bias", (N_,), (M,), r"\beta^{\star}", "teacher's biases", dims=("teacher",))
SCALARS = {
    "eta": Quantity("eta", latex=r"\eta", meaning="learning rate", minimum=0.0),
    "eta_a": Quantity("eta_a", latex=r"\eta_a", meaning="learning rate of the second layer", minimum=0.0),
    "eta_bias": Quantity("eta_bias", latex=r"\eta_\beta", meaning="learning rate of the biases", minimum=0.0),
    "kappa": Quantity("kappa", latex=r"\kappa", meaning="weight decay: weights shrink by κ/d a step", minimum=0.0),
    "sigma": Quantity("sigma", latex=r"\sigma", meaning="standard deviation of the label noise", minimum=0.0),
    "batch": Quantity("batch", latex="b", meaning="batch size: examples that a step averages over", minimum=1.0),
    "beta": Quantity(
        "beta", latex=r"\beta", meaning="momentum: what a step keeps of a buffer", minimum=0.0, maximum=1 - 1e-9
    ),
    "mu": Quantity("mu", latex=r"\mu", meaning="momentum: a step takes μ/d of a buffer", minimum=0.0),
    "flip": Quantity("flip", latex="p", meaning="probability that a label is flipped", minimum=0.0, maximum=0.5),
}
BUFFER = sympy.IndexedBase("m", real=True)
"""The field m·x/√d of a momentum buffer, on which nothing depends."""
P_ = Quantity("P", (I, KK), (K, K), "P", "overlaps w_i·m_k/d with momentum buffers", dims=("student", "student_2"))
V_ = Quantity(
    "V", (I, KK), (K, K), "V", "overlaps m_i·m_k/d of momentum buffers", symmetric=True, dims=("student", "student_2")
)
S_ = Quantity("S", (I, N_), (K, M), "S", "overlaps m_i·w*_n/d of buffers and teacher", dims=("student", "teacher"))
A_BUFFER = Quantity("a_buffer", (I,), (K,), "m^a", "momentum buffers of the second layer", dims=("student",))
BIAS_BUFFER = Quantity("bias_buffer", (I,), (K,), r"m^\beta", "momentum buffers of the biases", dims=("student",))
COVARIANCE = (
    (("h", "h"), sympy.Lambda((I, KK), Q_.symbol)),
    (("h", "h_star"), sympy.Lambda((I, N_), R_.symbol)),
    (("h_star", "h_star"), sympy.Lambda((N_, M_), T_.symbol)),
)
FAMILIES = (FieldFamily(H, K, "h"), FieldFamily(H_STAR, M, r"h^{\star}"))
MEAN = (
    ("h", sympy.Lambda((I,), BIAS.symbol)),
    ("h_star", sympy.Lambda((N_,), TEACHER_BIAS.symbol)),
)
EG = Quantity("eg", latex=r"\epsilon_g", meaning="generalisation error E[½(y* − φ)²], noise-free")
ERROR_RATE = Quantity("error_rate", latex=r"\epsilon_{01}", meaning="probability that sign φ is not the sign of y*")
LOSS = Quantity("loss", latex=r"\langle\ell\rangle", meaning="expected loss, label noise included")
COSINES = (
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
)


@dataclass(frozen=True, slots=True)
class Output:
    """The student's output and the label, as they enter the loss.

    Attributes
    ----------
    phi, target : Expr
        φ and the noise-free y*, written out in local fields.
    y : Expr
        The label: y* + σζ, or a random sign.
    label : Expr or None
        The mean of a label ±1 given the fields.
    slope, loss : Expr
        ∂ℓ/∂φ and ℓ of the fresh example.
    error : Expr
        What is averaged into ``eg`` or ``error_rate``.
    combinations : tuple of Combination
        The linear combinations of fields that stand in these.
    """

    phi: sympy.Expr
    target: sympy.Expr
    y: sympy.Expr
    label: sympy.Expr | None
    slope: sympy.Expr
    loss: sympy.Expr
    error: sympy.Expr
    combinations: tuple[Combination, ...]


_FINITE_ON_SPHERES = dict.fromkeys(
    ("finite-d", "finite-d-map"),
    "with vectors of fixed length (the mean of a rescaled vector is that of a ratio, which is no sum of moments)",
)
"""Its mean of one step holds averages of ratios of increments."""


@dataclass(frozen=True, slots=True)
class Momentum:
    """A buffer for each student vector: m ← keep·m + (F/√d) x, then w ← w + share·m.

    With a fixed β buffers are of the size of one kick, so that their overlaps are 1/d of those of weights, and
    relax within 1/(1 − β) steps. With β = 1 − μ/d they gather d kicks; in the units taken here, in which a step adds
    m/d, their overlaps are of the size of those of weights, and as slow.
    """

    keep: sympy.Expr
    share: sympy.Expr
    size: sympy.Expr
    refused: dict[str, str]

    @staticmethod
    def of(kind: str | bool) -> "Momentum":
        """Return what ``momentum=`` of the model stands for; without momentum, a buffer of which nothing is kept."""
        flow = {"gradient-flow": "with slow momentum"}
        return {
            False: Momentum(sympy.S.Zero, sympy.S.One, sympy.S.One, {}),
            "fixed": Momentum(SCALARS["beta"].base, sympy.S.One, 1 / D, {}),
            "slow": Momentum(1 - SCALARS["mu"].base / D, 1 / D, sympy.S.One, flow),
        }[kind]

    def added_to(self, index: sympy.Symbol) -> tuple[tuple[sympy.Indexed, sympy.Expr], ...]:
        """Return the old buffers that a step adds to the student vector of that index."""
        return ((BUFFER[index], self.share * self.keep),) if self.keep != 0 else ()

    def of_scalar(
        self, q: Quantity, keep: sympy.Expr, kick: sympy.Expr, buffer: Quantity
    ) -> tuple[ScalarUpdate, ScalarUpdate]:
        """Return the updates of a trained scalar and of its buffer n ← keep·n + kick/d, of which it takes a share."""
        added = self.share * self.keep * self.size * buffer.symbol
        scalar = ScalarUpdate(q.symbol, keep, self.share * kick, added)
        return scalar, ScalarUpdate(buffer.symbol, self.keep, kick, size=self.size)

    @property
    def overlaps(self) -> tuple[tuple[tuple[str, str], sympy.Lambda], ...]:
        """The inner products of buffers with all vectors, over d."""
        blocks = {("h", "m"): P_, ("m", "m"): V_, ("m", "h_star"): S_}
        return tuple((pair, sympy.Lambda(q.indices, self.size * q.symbol)) for pair, q in blocks.items())


def training_step(model: "TeacherStudent") -> TrainingStep:
    """Return the update rule of the model as data."""
    output = output_of(model)
    a, bias = A_.base, BIAS.base
    keep = 1 - KAPPA / D if model.weight_decay else sympy.S.One
    mean = dict(MEAN if model.target is None else MEAN[:1]) if model.biases else {}

    def descent(parameter: sympy.Indexed) -> sympy.Expr:
        """−∂ℓ/∂(parameter) by the chain rule through φ."""
        return -output.slope * differentiate_sum(output.phi, parameter)

    momentum = Momentum.of(model.momentum)
    pace = sympy.S.One if model.schedule is None else PACE

    def student(index: sympy.Symbol) -> VectorUpdate:
        center = bias[index] if model.biases else sympy.S.Zero
        kick = momentum.share * pace * ETA * descent(H[index])
        return VectorUpdate(H[index], keep, kick, center, momentum.added_to(index))

    def buffer(index: sympy.Symbol) -> VectorUpdate:
        return VectorUpdate(BUFFER[index], momentum.keep, pace * ETA * descent(H[index]))

    teacher = VectorUpdate(
        H_STAR[N_], sympy.S.One, sympy.S.Zero, TEACHER_BIAS.symbol if "h_star" in mean else sympy.S.Zero
    )
    with_buffers = (
        (P_, student(I), buffer(KK)),
        (V_, buffer(I), buffer(KK)),
        (S_, buffer(I), teacher),
    )
    noiseless = tuple(replace(combination, noise=sympy.S.Zero) for combination in output.combinations)
    trained = []
    if model.trains_second_layer:
        trained.append((A_, keep, pace * ETA_A * descent(a[I]), A_BUFFER))
    if model.biases:  # a bias enters as its field does
        trained.append((BIAS, sympy.S.One, pace * ETA_BIAS * descent(H[I]), BIAS_BUFFER))
    pairs = [(q, buffer, *momentum.of_scalar(q, kept, kick, buffer)) for q, kept, kick, buffer in trained]
    scalars = [(q, update) for q, _, update, _ in pairs]
    buffers = [(q, update) for _, q, _, update in pairs]
    step = TrainingStep(
        title=_title(model),
        families=(*FAMILIES, *(c.family for c in output.combinations)),
        covariance=(*COVARIANCE, *covariance_of(output.combinations, FAMILIES, dict(COVARIANCE))),
        noiseless=(*COVARIANCE, *covariance_of(noiseless, FAMILIES, dict(COVARIANCE))),
        mean=(*mean.items(), *(block for c in output.combinations for block in mean_of(c, mean))),
        label=output.label,
        written_out=tuple((c.field, c.written_out) for c in output.combinations),
        overlaps=(
            (Q_, student(I), student(KK)),
            (R_, student(I), teacher),
            *(with_buffers if model.momentum == "slow" else ()),
        ),
        fast=with_buffers if model.momentum == "fixed" else (),
        idle=(BUFFER,) if model.momentum else (),
        idle_overlaps=(*momentum.overlaps, *covariance_with(output.combinations, BUFFER, momentum.overlaps))
        if model.momentum
        else (),
        refused=momentum.refused | (_FINITE_ON_SPHERES if model.constraint else {}),
        fast_scalars=tuple((b, of_b, q.name) for q, b, _, of_b in pairs) if model.momentum == "fixed" else (),
        scalars=(*scalars, *(buffers if model.momentum == "slow" else ())),
        parameters=_parameters(model),
        averages=((EG if model.labels == "real" else ERROR_RATE, output.error), (LOSS, output.loss)),
        formulas=COSINES,
        definitions=_definitions(model, output, student(I), dict(scalars), keep),
        batch=SCALARS["batch"].base if model.batch else sympy.S.One,
        assumptions=(
            "inputs x ~ N(0, I_d), independent of each other and each seen once (one-pass SGD)",
            "local fields are jointly Gaussian given the weights, exactly",
            *(["s(t) is a function of the time t of these equations"] if model.schedule is not None else []),
            *(["after each step student vectors are rescaled to their old lengths"] if model.constraint else []),
        ),
        schedule=model.schedule,
        normalised=(H,) if model.constraint else (),
    )
    if model.inputs == "shifted":
        return shifted(step, output.combinations)
    return on_blocks(step) if model.inputs == "blocks" else step


def output_of(model: "TeacherStudent") -> Output:
    """Return the student's output and the label of a model, in the form in which they multiply out best.

    A polynomial slope of the loss multiplies out as it is. Otherwise, where the output (or the residual) is one
    Gaussian field, the slope becomes a function of that field.
    """
    phi, target = student_output(model), teacher_output(model)
    noise = SCALARS["sigma"].base * NOISE
    signs = model.labels != "real"
    y = LABEL if signs else target + noise
    combinations: dict[str, Combination] = {}
    label = _mean_label(model, target, combinations) if signs else None
    slope, loss = model.loss.slope, model.loss.expr
    if signs:
        slope, loss = _linear_in_label(slope), _linear_in_label(loss)
    if not model.loss.polynomial and model.linear_student:
        if signs:
            combinations["phi"] = output = _student_combination(model)
            slope = _as_function(slope, PHI, output.field, "psi")
            loss = _as_function(loss, PHI, output.field, "ell")
        elif model.linear_teacher and not loss.subs(Y, PHI + X).has(PHI):
            combinations["r"] = residual = _residual(model)
            slope = _as_function(slope.subs(Y, PHI + X), X, residual.field, "psi")
            loss = _as_function(loss.subs(Y, PHI + X), X, residual.field, "ell")
    at = {PHI: phi, Y: y}
    error = (target - phi) ** 2 / 2
    if signs:
        error = _disagreement(model, phi, target, combinations)
    return Output(
        phi,
        target,
        y,
        label,
        slope.subs(at, simultaneous=True),
        loss.subs(at, simultaneous=True),
        error,
        tuple(combinations[name] for name in ("phi", "y_star", "r") if name in combinations),
    )


def student_output(model: "TeacherStudent") -> sympy.Expr:
    """Return φ = s Σ_j a_j g(h_j)."""
    g = Univariate.of("g", model.activation)
    return model.output_scale * sympy.Sum(A_.base[J] * g(H[J]), (J, 1, K))


def teacher_output(model: "TeacherStudent") -> sympy.Expr:
    """Return y* = Σ_n b_n g̃(h*_n), or the target in numbered fields."""
    if model.target is not None:
        return by_values(model.target)
    same = model.teacher_activation == model.activation
    g_star = Univariate.of("g" if same else "g_star", model.teacher_activation)
    return sympy.Sum(B_.base[N_] * g_star(H_STAR[N_]), (N_, 1, M))


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


def _linear_in_label(expr: sympy.Expr) -> sympy.Expr:
    """Return A(φ) + y B(φ), which equals the expression for y = ±1."""
    plus, minus = (decaying_logarithms(expr.subs(Y, label)) for label in (1, -1))
    return sympy.expand((plus + minus) / 2) + Y * sympy.expand((plus - minus) / 2)


def _as_function(expr: sympy.Expr, variable: sympy.Symbol, field: sympy.Indexed, name: str) -> sympy.Expr:
    """Return an expression with its coefficients of 1 and y, functions of one variable, as values at a local field."""

    def value(coefficient: sympy.Expr, order: int) -> sympy.Expr:
        function = coefficient.subs(variable, X)
        if function.is_polynomial(X):
            return function.subs(X, field)
        return Univariate.of(f"{name}_{order}", Activation(function))(field)

    expr = sympy.expand(expr)
    return value(expr.coeff(Y, 0), 0) + Y * value(expr.coeff(Y, 1), 1)


def _student_combination(model: "TeacherStudent") -> Combination:
    return Combination(OUTPUT, ((H, K, A_.base, model.output_scale),), sympy.S.Zero, r"\phi")


def _teacher_combination() -> Combination:
    return Combination(TARGET, ((H_STAR, M, B_.base, sympy.S.One),), sympy.S.Zero, r"y^{\star}")


def _residual(model: "TeacherStudent") -> Combination:
    """Return y − φ of a linear student and a linear teacher."""
    parts = ((H, K, A_.base, -model.output_scale), (H_STAR, M, B_.base, sympy.S.One))
    return Combination(RESIDUAL, parts, SCALARS["sigma"].base, "r")


def _of_target(
    model: "TeacherStudent", target: sympy.Expr, function: sympy.Expr, combinations: dict[str, Combination]
) -> sympy.Expr:
    """Return a function of y*: its value at one field if y* is one field, or made of functions of single fields."""
    if model.target is not None:
        return by_values(sign_of_product(function.subs(X, model.target)))
    if not model.linear_teacher:
        return function.subs(X, target)
    field = combinations.setdefault("y_star", _teacher_combination()).field
    return Univariate.of("sign" if function == sympy.sign(X) else "f", Activation(function))(field)


def _mean_label(model: "TeacherStudent", target: sympy.Expr, combinations: dict[str, Combination]) -> sympy.Expr:
    """Return the mean of the label ±1 given the fields."""
    if model.labels == "logistic":
        return _of_target(model, target, sympy.tanh(X / 2), combinations)
    return (1 - 2 * SCALARS["flip"].base) * _of_target(model, target, sympy.sign(X), combinations)


def _disagreement(
    model: "TeacherStudent", phi: sympy.Expr, target: sympy.Expr, combinations: dict[str, Combination]
) -> sympy.Expr:
    """Return (1 − sign φ sign y*)/2, whose average is the probability of a wrong sign."""
    if model.linear_student:
        field = combinations.setdefault("phi", _student_combination(model)).field
        student = Univariate.of("sign", Activation(sympy.sign(X)))(field)
    else:
        student = sympy.sign(phi)
    return (1 - student * _of_target(model, target, sympy.sign(X), combinations)) / 2


def _parameters(model: "TeacherStudent") -> tuple[Quantity, ...]:
    train_a = model.trains_second_layer
    names = [
        "eta",
        *(["eta_a"] if train_a else []),
        *(["eta_bias"] if model.biases else []),
        *(["kappa"] if model.weight_decay else []),
        *(["batch"] if model.batch else []),
        *{False: [], "fixed": ["beta"], "slow": ["mu"]}[model.momentum],
        *{"real": ["sigma"], "sign": ["flip"], "logistic": []}[model.labels],
    ]
    return (
        *(SCALARS[name] for name in names),
        T_,
        *(() if train_a else (A_,)),
        *(() if model.target is not None else (B_,)),
        *((TEACHER_BIAS,) if model.biases and model.target is None else ()),
        *parameters_of(model.schedule),
    )


def _definitions(
    model: "TeacherStudent",
    output: Output,
    student: VectorUpdate,
    scalars: dict[Quantity, ScalarUpdate],
    keep: sympy.Expr,
) -> tuple[tuple[sympy.Basic, sympy.Expr], ...]:
    """Return the network, the target, the loss and the update, for the reader."""
    x, phi, y, y_star, ell = (sympy.Symbol(s) for s in ("x", "phi", "y", "y_star", "ell"))
    weight = sympy.IndexedBase("w")[I]
    change = sympy.Function("Delta")
    mean = sympy.Function("batch_mean") if model.batch else sympy.Id
    return (
        (phi, output.phi),
        *([(y, output.y)] if model.labels == "real" else [(y_star, output.target)]),
        (ell, model.loss.expr),
        (change(weight), (keep - 1) * weight + mean(student.kick / sympy.sqrt(D) * x)),
        *((change(q.symbol), (u.keep - 1) * u.scalar + u.added + mean(u.kick / D)) for q, u in scalars.items()),
        *([(PACE, model.schedule)] if model.schedule is not None else []),
    )


def _title(model: "TeacherStudent") -> str:
    g, g_star = model.activation.title, model.teacher_activation.title
    if model.target is not None:
        pair = f"{g} student, target {target_text(model.target)}"
    else:
        pair = f"{g} student and teacher" if g == g_star else f"{g} student, {g_star} teacher"
    layers = "both layers trained" if model.trains_second_layer else "first layer trained"
    named = model.loss.name or str(model.loss.expr)
    extra = [] if named == "squared" else [f"{named} loss"]
    extra += {"real": [], "sign": ["sign labels"], "logistic": ["logistic labels"]}[model.labels]
    extra += ["biases"] if model.biases else []
    extra += ["mini-batches"] if model.batch else []
    extra += {False: [], "fixed": ["momentum"], "slow": ["slow momentum"]}[model.momentum]
    extra += ["scheduled learning rates"] if model.schedule is not None else []
    extra += ["vectors of fixed length"] if model.constraint else []
    return f"One-pass SGD, {', '.join([pair, layers, *extra])}"
