"""Teacher–student learning by one-pass SGD: a two-layer student trained on the labels of a teacher.

What is stated here is the model; its training step as data is in :mod:`effdyn.derive.committee`.

Sources: Saad & Solla, Phys. Rev. E 52, 4225 (1995); Goldt et al., NeurIPS 2019 (trained second layer, noise, weight
decay); Kinzel & Ruján, Europhys. Lett. 13, 473 (1990) and Biehl & Schwarze, Europhys. Lett. 20, 733 (1992):
perceptrons.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import sympy

from .activation import X, activation
from .averages import check_method
from .block_inputs import check_blocks
from .committee import K, training_step
from .dynamics import Dynamics
from .errors import ModelError, NotYet, nearest
from .gaussian.cached_forms import cached
from .loss import MARGIN, loss
from .pipeline import TrainingStep, derive_dynamics, find_limit
from .projection import check_lengths
from .schedule import schedule
from .shifted_inputs import check_mean
from .target import target, target_text
from .text import parse_expression
from .wide_student import check_wide, describe_neurons

LABELS = ("real", "sign", "logistic")
MOMENTA = ("fixed", "slow")
CONSTRAINTS = ("spherical",)
INPUTS = ("isotropic", "blocks", "shifted")


@dataclass(frozen=True, slots=True)
class TeacherStudent:
    """A student committee trained by one-pass SGD on the labels of a teacher.

    Student φ = s(K) Σ_i a_i g(h_i), teacher y* = Σ_n b_n g̃(h*_n), label y = y* + σ ζ or a random sign, local fields h =
    w·x/√d, inputs x ~ N(0, I_d), loss ℓ(φ, y), update Δw_i = −(η/√d) ∂ℓ/∂h_i x − (κ/d) w_i and, where they are trained,
    Δa_i = −(η_a/d) ∂ℓ/∂a_i − (κ/d) a_i and Δβ_i = −(η_β/d) ∂ℓ/∂β_i for biases β, h = w·x/√d + β.

    Parameters
    ----------
    activation : str, sympy.Expr, callable or Activation
        g; ``"erf"`` means erf(h/√2). See :func:`effdyn.derive.activation`.
    teacher_activation : optional
        g̃; the student's by default.
    loss : str, sympy.Expr, callable or Loss
        ℓ: ``"squared"`` (½(y − φ)²), ``"logistic"``, ``"hinge"``, ``"huber"``, …, or a formula in ``phi`` and ``y``
        (:func:`effdyn.derive.loss`).
    second_layer : {"fixed", "trained"}
        Whether ``a`` is a parameter or a state.
    output_scale : number, str or sympy.Expr
        s, an expression of K such as ``"1/K"`` or ``"1/sqrt(K)"``. The teacher's output is not scaled.
    weight_decay : bool
        Whether weights decay by κ/d a step (κ is not multiplied by η; Goldt et al.'s convention).
    labels : {"real", "sign", "logistic"}
        ``"real"``: y = y* + σ ζ. ``"sign"``: y = sign y*, flipped with probability ``flip``. ``"logistic"``: y = ±1
        with P(y = 1) = 1/(1 + e^(−y*)).
    target : str, sympy.Expr or callable, optional
        y* as a formula in numbered teacher fields, ``"h1*h2*h3"``, instead of the committee.
    biases : bool
        Whether each student unit has a trained bias, the state ``bias``, and each teacher unit of a committee a fixed
        one, the parameter ``teacher_bias``.
    batch : bool
        Whether a step averages the gradients of ``batch`` fresh examples, a parameter, all at the weights before the
        step. Time counts steps, not examples.
    momentum : {False, "fixed", "slow"}
        Heavy-ball momentum of all that is trained: a buffer m_i ← β m_i − (η/√d) ∂ℓ/∂h_i x is added to w_i, and
        likewise one of their own to a_i and β_i. ``"fixed"``: a fixed β, the parameter ``beta``; buffers relax within
        1/(1 − β) steps and are eliminated. ``"slow"``: β = 1 − μ/d with the parameter ``mu``, and learning rates η/d;
        buffers, in units in which a step adds m_i/d to w_i, are as slow as weights, and their overlaps are the states
        ``P`` (with students), ``V`` (with each other) and ``S`` (with teachers), besides ``a_buffer`` and
        ``bias_buffer`` (K,) where these are trained, and ``buffer_mean`` (K,), m·μ/√d, of inputs with a mean.
    schedule : str, sympy.Expr or callable, optional
        s(t), by which every learning rate is multiplied at the time t of the step, as in ``"1/(1 + t/tau)"``; names
        other than ``t`` become parameters. t is that of the equations' clock, steps/d, or η·steps/d in the limit of
        gradient flow (and so in simulations with ``clock="eta*steps/d"``). It must not be negative.
    constraint : {None, "spherical"}
        ``"spherical"``: after each step every student vector (no momentum buffer) is rescaled to the length that it
        had, so that Q_ii stays what it was; on inputs in blocks its sum over them, the parts moving.
    inputs : {"isotropic", "blocks", "shifted"}
        ``"isotropic"``: x ~ N(0, I_d). ``"blocks"``: x ~ N(0, Σ), Σ with the eigenvalues ``input_variance`` (B,) on
        blocks of ``input_share`` (B,) times d directions. All overlaps are then those of the parts of vectors in each
        block: states ``Q`` (B, K, K), ``R`` (B, K, M) and the parameter ``T`` (B, M, M). ``"shifted"``: x ~ N(μ, I_d)
        with |μ| = ``input_mean`` of order one, as far as one component varies; the means w·μ/√d of fields are the state
        ``mean`` (K,) and the parameter ``teacher_mean`` (M,).

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
    loss: Any = "squared"
    second_layer: str = "fixed"
    output_scale: Any = 1
    weight_decay: bool = False
    labels: str = "real"
    target: Any = None
    biases: bool = False
    batch: bool = False
    momentum: Any = False
    schedule: Any = None
    constraint: str | None = None
    inputs: str = "isotropic"

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
        if self.momentum is not False and self.momentum not in MOMENTA:
            raise ModelError("momentum", self.momentum, f"False, {' or '.join(map(repr, MOMENTA))}")
        if self.inputs not in INPUTS:
            accepted = f"one of {', '.join(map(repr, INPUTS))}{nearest(str(self.inputs), INPUTS)}"
            raise ModelError("inputs", self.inputs, accepted)
        if not isinstance(self.batch, bool):
            raise ModelError("batch", self.batch, "True or False; the number of examples is the parameter batch")
        put("loss", loss(self.loss))
        put("target", target(self.target))
        if self.second_layer not in ("fixed", "trained"):
            raise ModelError(
                "second_layer",
                self.second_layer,
                f"'fixed' or 'trained'{nearest(str(self.second_layer), ('fixed', 'trained'))}",
            )
        if not isinstance(self.weight_decay, bool):
            raise ModelError("weight_decay", self.weight_decay, "True or False; its strength is the parameter kappa")
        if not isinstance(self.biases, bool):
            raise ModelError("biases", self.biases, "True or False; their rate is the parameter eta_bias")
        if self.labels not in LABELS:
            accepted = f"one of {', '.join(map(repr, LABELS))}{nearest(str(self.labels), LABELS)}"
            raise ModelError("labels", self.labels, accepted)
        put("output_scale", _output_scale(self.output_scale))
        put("schedule", schedule(self.schedule))
        if self.constraint is not None and self.constraint not in CONSTRAINTS:
            near = nearest(str(self.constraint), CONSTRAINTS)
            raise ModelError("constraint", self.constraint, f"None or {' or '.join(map(repr, CONSTRAINTS))}{near}")
        _check_consistency(self)

    @property
    def trains_second_layer(self) -> bool:
        """Whether ``a`` is a state."""
        return self.second_layer == "trained"

    @property
    def linear_student(self) -> bool:
        """Whether the output is a linear combination of local fields, one Gaussian field."""
        return self.activation.expr == X

    @property
    def linear_teacher(self) -> bool:
        """Whether y* is a linear combination of local fields, one Gaussian field."""
        return self.target is None and self.teacher_activation.expr == X

    def dynamics(self, limit: str = "high-dimensional", moments: str = "auto") -> Dynamics:
        """Derive the closed equations of motion of the overlaps.

        Parameters
        ----------
        limit : str
            A name in :data:`.limits.LIMITS`.
            ``"high-dimensional"``: d → ∞ at fixed η, with t = steps/d. ``"gradient-flow"``: then η → 0, with t =
            η·steps/d. ``"finite-d"``: the exact mean of one step at finite d, with d as a parameter, as a differential
            equation; ``"finite-d-map"``: the same, step by step. Of students with ``output_scale="1/K"``, with t =
            η·steps/(Kd): ``"wide"``: d → ∞ at any K and η/K; ``"mean-field-pairs"``: then η/K → 0, in ``R`` and the
            overlaps ``Q_perp`` (K, K) of what is orthogonal to the teacher; ``"mean-field"``: then K → ∞, neurons
            sharing nothing of that, with ``Q_perp`` (K,): an ansatz at finite K, off by 1/K.
        moments : {"auto", "closed", "numeric"}
            How Gaussian expectations are computed. ``"auto"``: by closed forms where there are any, by a rule over one
            or two fields where that suffices, else by a rule over all fields at once. ``"closed"``: closed forms or an
            error. ``"numeric"``: all by the rule over all fields. What was done stands in the ``status`` of each
            equation.

        Returns
        -------
        Dynamics
            States ``Q`` (K, K), ``R`` (K, M) and, where trained, ``a`` (K,), with biases ``bias`` (K,);
            observables ``eg`` (or, for labels ±1, ``error_rate``), ``loss`` and cosines.

        Raises
        ------
        NoClosedForm
            With ``moments="closed"``, if a Gaussian expectation that it needs has none.
        ModelError
            For an unknown limit, or functions that have no expectation.

        Examples
        --------
        >>> dyn = TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
        >>> dyn.clock
        'eta*steps/d'
        """
        return _derive(self, limit, check_method(moments))

    def training_step(self) -> TrainingStep:
        """Return the update rule as data: its fields, order parameters and parameters, whatever the activations."""
        return training_step(self)

    @property
    def restricted(self) -> bool:
        """Whether there are values that :meth:`check_values` refuses, beyond overlaps that no vectors have."""
        return self.inputs != "isotropic" or self.constraint is not None

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Refuse values, arrays by name, that no data have.

        Raises
        ------
        ModelError
            With inputs in blocks, if shares do not add up to 1, or the overlaps of a block are not symmetric; with
            inputs that have a mean, if no mean of that length gives these means of fields; of students of fixed length,
            if one has length 0.
        """
        if self.constraint and "Q" in values:
            check_lengths(values["Q"])
        if self.inputs == "blocks":
            check_blocks(values)
        if self.inputs == "shifted":
            check_mean(values)

    def to_json(self) -> str:
        """Return the model as JSON text, which :func:`effdyn.derive.model_from_json` reads."""
        from .export.serialize import model_to_json

        return model_to_json(self)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that differ from their defaults, as plain text, numbers and booleans."""
        plain = {
            "activation": self.activation.text,
            "teacher_activation": None if self.teacher_activation == self.activation else self.teacher_activation.text,
            "loss": self.loss.name or sympy.sstr(self.loss.expr, full_prec=True),
            "second_layer": self.second_layer,
            "output_scale": int(self.output_scale) if self.output_scale.is_Integer else str(self.output_scale),
            "weight_decay": self.weight_decay,
            "labels": self.labels,
            "target": None if self.target is None else target_text(self.target),
            "biases": self.biases,
            "batch": self.batch,
            "momentum": self.momentum,
            "schedule": None if self.schedule is None else sympy.sstr(self.schedule, full_prec=True),
            "constraint": self.constraint,
            "inputs": self.inputs,
        }
        defaults = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in plain.items() if name == "activation" or value != defaults[name]}

    def __repr__(self) -> str:
        return f"TeacherStudent({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"


@lru_cache(maxsize=64)
def _derive(model: TeacherStudent, limit: str, moments: str) -> Dynamics:
    found = find_limit(limit)
    check_wide(model, found)
    key = f"{model.to_json()} {limit} {moments}"
    return cached(
        "dynamics", key, lambda: describe_neurons(derive_dynamics(training_step(model), found, model, moments), found)
    )


def _check_consistency(model: TeacherStudent) -> None:
    """Raise a ModelError for parts that do not go together."""
    slope = model.activation.derivative()
    if slope == 0 or slope.has(sympy.DiracDelta):
        raise ModelError(
            "activation",
            model.activation,
            "a continuous function: the gradient of this one vanishes almost everywhere (teachers may have jumps)",
        )
    if model.labels == "real" and model.loss.name in MARGIN:
        accepted = "a loss for real labels such as 'squared' or 'huber', or labels='sign' or 'logistic'"
        raise ModelError("loss", model.loss.name, accepted)
    if model.trains_second_layer and model.loss.jumps and (plateaus := model.activation.plateaus):
        stuck = ", ".join(map(str, plateaus))
        accepted = (
            "a loss with a continuous slope: with this activation, which is constant ({}) on an interval, the output"
        )
        reason = (
            "has positive probability at the kink of the loss, where the gradient of the second layer is not defined"
        )
        raise ModelError("loss", model.loss.name or model.loss.expr, f"{accepted.format(stuck)} {reason}")
    if model.inputs == "shifted" and model.target is not None:
        raise NotYet("inputs='shifted' with target=", "inputs='shifted' of a committee")
    if model.target is not None and model.teacher_activation != model.activation:
        raise ModelError("teacher_activation", model.teacher_activation, "nothing, where target= is given")


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
