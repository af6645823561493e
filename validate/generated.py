"""From a model to the compiled step of its simulation: one self-contained source per model and engine.

An engine writes its step as an ordinary Python function in terms of :func:`student_unit`, :func:`teacher_unit` and
:func:`learn`. Here the two units are replaced by the model's activations, printed from SymPy, and everything is put
into one file, because Numba's on-disk cache does not see changes in functions of other files.

Nothing here is taken from derived equations: only g, g' and g̃ enter.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import sympy
from sympy.printing.pycode import PythonCodePrinter

from effdyn.derive.activation import Activation, X
from effdyn.derive.errors import ModelError
from effdyn.solve.cache import load_generated

if TYPE_CHECKING:
    from effdyn.derive.teacher_student import TeacherStudent

KINKED = (sympy.Max, sympy.Min, sympy.Abs, sympy.sign, sympy.Heaviside)
"""Functions that are printed as branches."""

_OPTIONS = 'cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}'
# Not "nnan", "ninf": divergence is found by looking for what is not finite.


def student_unit(h: float) -> tuple[float, float]:
    """Return g(h) and g'(h); stands for the model's activation, here the linear one."""
    return h, 1.0


def teacher_unit(h: float) -> float:
    """Return g̃(h); stands for the teacher's activation, here the linear one."""
    return h


def learn(
    h: np.ndarray,
    a: np.ndarray,
    y: float,
    scale: float,
    eta: float,
    eta_a: float,
    keep: float,
    trained: bool,
    push: np.ndarray,
) -> float:
    """Answer one example: set ``push`` to the coefficients of x in Δw, train ``a``, return the residual y − φ.

    For the loss ½(y − φ)² with φ = s Σ_i a_i g(h_i): push_i = η s a_i g'(h_i) (y − φ), and
    a_i ← keep·a_i + η_a s g(h_i) (y − φ), both with the old weights. The rates are those of one step, 1/d included.
    ``h``, shape (K,), is overwritten.
    """
    phi = 0.0
    for i in range(h.size):
        value, slope = student_unit(h[i])
        phi += a[i] * value
        h[i] = value
        push[i] = slope
    residual = y - scale * phi
    for i in range(h.size):
        push[i] *= eta * scale * a[i] * residual
        if trained:
            a[i] = keep * a[i] + eta_a * scale * h[i] * residual
    return residual


def build(model: TeacherStudent, engine: str, *functions: Callable) -> ModuleType:
    """Return the compiled module of an engine: the model's units, :func:`learn`, and the engine's own functions."""
    name = re.sub(r"\W", "_", model.activation.name) or "custom"
    return load_generated(f"{engine}_{name}", source(model, *functions))


def source(model: TeacherStudent, *functions: Callable) -> str:
    """Return the text of the generated module; the same model gives the same bytes."""
    g, target = model.activation, model.teacher_activation
    parts = [
        f'"""One-pass SGD with student unit g(h) = {_formula(g)}, teacher unit {_formula(target)}."""',
        "from __future__ import annotations\n\nimport math\n\nimport numpy as np\nfrom numba import njit",
        _unit("student_unit", "activation", g, g.expr, g.derivative()),
        _unit("teacher_unit", "teacher_activation", target, target.expr),
        *(f"@njit({_OPTIONS})\n{inspect.getsource(function).rstrip()}" for function in (learn, *functions)),
    ]
    return "\n\n\n".join(parts) + "\n"


def _formula(activation: Activation) -> str:
    return str(activation.expr.subs(X, sympy.Symbol("h", real=True)))


def _unit(name: str, argument: str, activation: Activation, *values: sympy.Expr) -> str:
    h = sympy.Symbol("h", real=True)
    values = tuple(value.rewrite(KINKED, sympy.Piecewise).subs(X, h) for value in values)
    shared, results = sympy.cse(values, symbols=sympy.numbered_symbols("c", real=True))
    printer = PythonCodePrinter({"fully_qualified_modules": True})
    try:
        lines = [f"    {symbol} = {printer.doprint(value)}" for symbol, value in shared]
        lines.append(f"    return {', '.join(f'1.0 * ({printer.doprint(value)})' for value in results)}")
    except NotImplementedError:
        unknown = sorted(
            {str(f.func) for value in values for f in value.atoms(sympy.Function) if not _prints(printer, f)}
        )
        raise ModelError(
            argument,
            activation,
            f"a function that can be run, with its derivative; there is no code for {', '.join(unknown)}",
        ) from None
    return "\n".join([f"@njit({_OPTIONS})", f"def {name}(h):", *lines])


def _prints(printer: PythonCodePrinter, function: sympy.Expr) -> bool:
    try:
        printer.doprint(function)
    except NotImplementedError:
        return False
    return True
