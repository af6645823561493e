"""From a model to the compiled step of its simulation: one self-contained source per model and engine.

An engine writes its step as an ordinary Python function in terms of :func:`teacher_output`, :func:`label` and
:func:`learn`, and those in terms of the units and of the slope of the loss. The stand-ins of this file (linear units,
squared loss, real labels) are replaced by the model's own functions, printed from SymPy, and everything is put into one
file, because Numba's on-disk cache does not see changes in functions of other files.

Nothing here is taken from derived equations: only g, g', g̃ or the target, ℓ' and the rule of the labels enter.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import sympy

from effdyn.derive.activation import Activation, X
from effdyn.derive.dynamics import TIME
from effdyn.derive.loss import PHI, Y
from effdyn.derive.schedule import parameters_of
from effdyn.solve.kernels.cache import load_generated

from .labels import LABELS, real
from .printing import OPTIONS, print_function, print_user_functions

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

IMPORTS = "import math\n\nimport numpy as np\nfrom numba import njit"
label = real
"""Stands for the rule of the model's labels, here y = y* + noise."""
TRAINED, BIASES, SPHERICAL = True, True, False
"""Whether the second layer is trained, units have biases, lengths are kept: constants of each generated file."""


def student_unit(h: float) -> tuple[float, float]:
    """Return g(h) and g'(h); stands for the model's activation, here the linear one."""
    return h, 1.0


def teacher_unit(h: float) -> float:
    """Return g̃(h); stands for the teacher's activation, here the linear one."""
    return h


def loss_slope(phi: float, y: float) -> float:
    """Return ∂ℓ/∂φ; stands for the model's loss, here the squared one."""
    return phi - y


def pace(t: float, clock: np.ndarray) -> float:
    """Return the factor of the learning rates at time t; stands for the model's schedule, here none.

    ``clock`` holds the time at the start, that which a step takes, the steps made, and the schedule's parameters.
    """
    return 1.0


def hold(rows: np.ndarray, lengths: np.ndarray) -> None:
    """Rescale the first rows to given lengths, (K,); others, of momentum buffers, stay."""
    for i in range(lengths.size):
        square = 0.0
        for j in range(rows.shape[1]):
            square += rows[i, j] * rows[i, j]
        factor = lengths[i] / math.sqrt(square)
        for j in range(rows.shape[1]):
            rows[i, j] *= factor


def teacher_output(fields: np.ndarray, b: np.ndarray, bias: np.ndarray) -> float:
    """Return y*; stands for the model's target, where that is not a committee."""
    output = 0.0
    for n in range(fields.size):
        output += b[n] * teacher_unit(fields[n] + bias[n] if BIASES else fields[n])
    return output


def learn(
    h: np.ndarray,
    a: np.ndarray,
    bias: np.ndarray,
    y: float,
    scale: float,
    eta: float,
    eta_a: float,
    eta_bias: float,
    keep: float,
    push: np.ndarray,
) -> bool:
    """Answer one example: set ``push`` to the coefficients of x in Δw, train ``a`` and ``bias``; return whether it was
    finite.

    With φ = s Σ_i a_i g(h_i + c_i), c the biases, and ℓ' = ∂ℓ/∂φ: push_i = −η s a_i g'_i ℓ', a_i ← keep·a_i − η_a s g_i
    ℓ', c_i ← c_i − η_c s a_i g'_i ℓ', all with the old weights. The rates are those of one step, 1/d included. ``h``,
    shape (K,), is overwritten. Nothing is trained where φ or ℓ' is not finite.
    """
    phi = 0.0
    for i in range(h.size):
        value, slope = student_unit(h[i] + bias[i] if BIASES else h[i])
        phi += a[i] * value
        h[i] = value
        push[i] = slope
    phi *= scale
    descent = -scale * loss_slope(phi, y)
    if not (abs(phi) < np.inf and abs(descent) < np.inf):
        return False
    for i in range(h.size):
        downhill = descent * a[i] * push[i]
        push[i] = eta * downhill
        if BIASES:
            bias[i] += eta_bias * downhill
        if TRAINED:
            a[i] = keep * a[i] + eta_a * descent * h[i]
    return True


def build(model: TeacherStudent, engine: str, *functions: Callable) -> ModuleType:
    """Return the compiled module of an engine: the model's units, :func:`learn`, and the engine's own functions."""
    name = re.sub(r"\W", "_", model.activation.name) or "custom"
    return load_generated(f"{engine}_{name}", source(model, *functions))


def source(model: TeacherStudent, *functions: Callable) -> str:
    """Return the text of the generated module; the same model gives the same bytes."""
    flags = model.trains_second_layer, model.biases, model.constraint == "spherical"
    constants = f"TRAINED, BIASES, SPHERICAL = {', '.join(map(str, flags))}"
    slope = print_function("loss_slope", {PHI: "phi", Y: "y"}, (model.loss.slope,), ("loss", model.loss))
    rule = compiled(LABELS[model.labels], inline=True).replace(f"def {LABELS[model.labels].__name__}(", "def label(")
    learning = [rule, slope, _pace(model), compiled(learn, inline=True)]
    return assemble(model, constants, *learning, *map(compiled, functions))


def assemble(model: TeacherStudent, constants: str, *functions: str) -> str:
    """Return a module of the model's units and of the text of some functions that call them."""
    g = model.activation
    teacher = f"teacher unit {_formula(model.teacher_activation)}" if model.target is None else f"y* = {model.target}"
    units = g.expr, g.derivative(), model.teacher_activation.expr if model.target is None else model.target
    parts = [
        f'"""One-pass SGD with student unit g(h) = {_formula(g)}, {teacher}, loss {model.loss.expr}."""',
        f"from __future__ import annotations\n\n{IMPORTS}\n\n{constants}",
        *print_user_functions(*units),
        print_function("student_unit", {X: "h"}, (g.expr, g.derivative()), ("activation", g)),
        *_teacher(model),
        *functions,
    ]
    return "\n\n\n".join(parts) + "\n"


def _teacher(model: TeacherStudent) -> list[str]:
    if model.target is None:
        g = model.teacher_activation
        unit = print_function("teacher_unit", {X: "h"}, (g.expr,), ("teacher_activation", g))
        return [unit, compiled(teacher_output, inline=True)]
    fields = {field: f"fields[{int(field.indices[0]) - 1}]" for field in teacher_fields(model)}
    signature = tuple(inspect.signature(teacher_output).parameters)
    return [print_function("teacher_output", fields, (model.target,), ("target", model.target), signature)]


def _pace(model: TeacherStudent) -> str:
    """Return the text of the schedule."""
    if model.schedule is None:
        return compiled(pace, inline=True)
    given = {q.base: f"clock[{n}]" for n, q in enumerate(parameters_of(model.schedule), start=3)}
    signature = tuple(inspect.signature(pace).parameters)
    return print_function("pace", {TIME: "t", **given}, (model.schedule,), ("schedule", model.schedule), signature)


def teacher_fields(model: TeacherStudent) -> list[sympy.Indexed]:
    """Return the numbered fields of the model's target, in order."""
    return sorted(model.target.atoms(sympy.Indexed), key=lambda field: int(field.indices[0]))


def compiled(function: Callable, inline: bool = False) -> str:
    """Return the text of a compiled function. Calls that take several arrays cost 30 ns unless inlined."""
    options = f"{OPTIONS}, forceinline=True" if inline else OPTIONS
    return f"@njit({options})\n{inspect.getsource(function).rstrip()}"


def _formula(activation: Activation) -> str:
    return str(activation.expr.subs(X, sympy.Symbol("h", real=True)))
