"""What a simulation starts from: initial overlaps and parameters, read and checked once, at the call.

Knows nothing of engines. Every mistake is reported under the name that the user typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.errors import Described
from effdyn.derive.schedule import parameters_of
from effdyn.solve.kernels.layout import read_inputs as solve_inputs

from .generated import teacher_fields

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

SCALARS = ("eta", "eta_a", "eta_bias", "sigma", "flip", "kappa", "beta", "mu", "input_mean")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Initial overlaps and parameters with their shapes settled; zeros stand for what the model does not have.

    Attributes
    ----------
    Q, R, T : ndarray
        Initial overlaps, shapes (K, K), (K, M), (M, M).
    a, b : ndarray
        Second layers of student (its initial value where it is trained) and teacher, shapes (K,), (M,).
    bias, teacher_bias : ndarray
        Initial biases of the students, (K,), and biases of the teacher, (M,).
    eta, eta_a, eta_bias, sigma, flip, kappa : float
        Learning rates of the weights, of the second layer and of the biases, standard deviation of the label noise,
        probability that a label is flipped, weight decay.
    beta, mu : float
        Of momentum: how much of a buffer a step keeps, or d times what it loses.
    batch : int
        Examples that a step averages over.
    scale : float
        s(K), the factor in front of the student's output.
    trained : bool
        Whether ``a`` is trained.
    P, V, S : ndarray
        Initial overlaps of momentum buffers with students (K, K), each other (K, K) and teachers (K, M).
    a_buffer, bias_buffer : ndarray
        Initial momentum buffers of a trained second layer and of biases, shape (K,).
    buffer_mean : ndarray
        Initial means of the fields of momentum buffers, (K,), on inputs with a mean.
    input_variance, input_share : ndarray
        Of inputs in blocks, shape (B,), whose overlaps have the block as first axis; empty for isotropic ones.
    mean, teacher_mean : ndarray
        Means of the fields of students (K,), initially, and of the teacher (M,), on inputs with a mean.
    input_mean : float
        Its length.
    buffers : {"", "fixed", "slow"}
        The kind of momentum; slow buffers are in units in which d steps move the weights by them.
    labels : str
        ``"real"``, ``"sign"`` or ``"logistic"``.
    states : tuple of str
        The model's states, by name.
    timing : tuple of (str, float)
        The parameters of the schedule of the learning rates.
    origin, unit : float
        The time at the start, and that which d steps take.
    """

    Q: np.ndarray
    R: np.ndarray
    T: np.ndarray
    a: np.ndarray
    b: np.ndarray
    bias: np.ndarray
    teacher_bias: np.ndarray
    eta: float
    eta_a: float
    eta_bias: float
    sigma: float
    flip: float
    kappa: float
    beta: float
    mu: float
    batch: int
    scale: float
    trained: bool
    labels: str
    states: tuple[str, ...]
    P: np.ndarray
    V: np.ndarray
    S: np.ndarray
    a_buffer: np.ndarray
    bias_buffer: np.ndarray
    buffer_mean: np.ndarray
    buffers: str
    input_variance: np.ndarray
    input_share: np.ndarray
    mean: np.ndarray
    teacher_mean: np.ndarray
    input_mean: float
    timing: tuple[tuple[str, float], ...] = ()
    origin: float = 0.0
    unit: float = 1.0

    @property
    def K(self) -> int:
        """Number of student units."""
        return self.R.shape[-2]

    @property
    def M(self) -> int:
        """Number of teacher units."""
        return self.R.shape[-1]

    @property
    def in_blocks(self) -> bool:
        """Whether overlaps are those of parts in blocks of the inputs' covariance."""
        return self.input_share.size > 0

    @property
    def shifted(self) -> bool:
        """Whether inputs have a mean."""
        return "mean" in self.states

    @property
    def gram(self) -> np.ndarray:
        """Ω, the overlaps of all vectors, the teacher's first; shape (M + K, M + K)."""
        return np.block([[self.T, self.R.T], [self.R, self.Q]])

    def rates(self, d: int) -> tuple[float, float, float, float, float]:
        """Return what a step at dimension d is made with: s, η/d, η_a/d, η_bias/d and 1 − κ/d."""
        return self.scale, self.eta / d, self.eta_a / d, self.eta_bias / d, 1 - self.kappa / d

    def clock(self, d: int) -> np.ndarray:
        """Return what tells the time of a step: that at the start, that of one step, steps made, timing."""
        return np.array([self.origin, self.unit / d, 0.0, *(value for _, value in self.timing)])

    def __getitem__(self, name: str) -> Any:
        """Return an initial value or a parameter of the model."""
        return dict(self.timing)[name] if name in dict(self.timing) else getattr(self, name)

    def momentum(self, d: int) -> tuple[float, float]:
        """Return what a buffer keeps in a step, and the share of it that is added to the weights."""
        return (1 - self.mu / d, 1 / d) if self.buffers == "slow" else (self.beta, 1.0)

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The overlaps of all rows that move, students and then momentum buffers, with each other and the teacher."""
        if not self.buffers:
            return self.Q, self.R
        return np.block([[self.Q, self.P], [self.P.T, self.V]]), np.concatenate([self.R, self.S])


def read_inputs(model: TeacherStudent, y0: Mapping[str, Any], params: Mapping[str, Any]) -> Inputs:
    """Return the checked arrays behind ``y0`` and ``params``.

    Raises
    ------
    ModelError
        Naming the entry at fault: unknown, missing, in both places, of the wrong shape, not finite, out of range,
        overlaps that no vectors have, or fewer teachers than the target has fields.
    """
    step = model.training_step()
    given = solve_inputs(step, y0, params)
    arrays: dict[str, Any] = given.y0 | given.params
    K, M = arrays["R"].shape[-2:]
    model.check_values(arrays)
    _check_target(model, M)
    vectors = {"a": K, "b": M, "bias": K, "teacher_bias": M, "mean": K, "teacher_mean": M}
    vectors |= {"a_buffer": K, "bias_buffer": K, "buffer_mean": K}
    values: dict[str, Any] = {name: arrays[name] for name in ("Q", "R", "T")}
    values |= {name: arrays.get(name, np.zeros(size)) for name, size in vectors.items()}
    values |= {name: float(arrays.get(name, 0.0)) for name in SCALARS}
    nothing = {"P": np.zeros((K, K)), "V": np.zeros((K, K)), "S": np.zeros((K, M))}
    values |= {name: arrays.get(name, zeros) for name, zeros in nothing.items()}
    return Inputs(
        **values,
        scale=_output_scale(model, K),
        trained=model.trains_second_layer,
        labels=model.labels,
        states=tuple(q.name for q in step.states),
        batch=_whole("batch", arrays.get("batch", 1.0)),
        buffers=model.momentum or "",
        timing=tuple((q.name, float(arrays[q.name])) for q in parameters_of(model.schedule)),
        input_variance=arrays.get("input_variance", np.empty(0)),
        input_share=arrays.get("input_share", np.empty(0)),
    )


def _whole(name: str, given: Any) -> int:
    number = float(given)
    if number != int(number) or number < 1:
        raise ModelError(f"params[{name!r}]", number, "a whole number, at least 1")
    return int(number)


def _check_target(model: TeacherStudent, M: int) -> None:
    needed = 0 if model.target is None else max(int(field.indices[0]) for field in teacher_fields(model))
    if needed > M:
        raise ModelError(
            "y0['R']",
            Described(f"array with {M} column{'s' if M > 1 else ''}"),
            f"shape (K, M) with M at least {needed}: the target {model.target} is of {needed} teacher fields",
        )


def _output_scale(model: TeacherStudent, K: int) -> float:
    scale = complex(model.output_scale.subs({symbol: K for symbol in model.output_scale.free_symbols}).evalf())
    if scale.imag or not np.isfinite(scale) or scale == 0:
        raise ModelError("output_scale", model.output_scale, f"a finite real number other than 0 at K = {K}")
    return scale.real
