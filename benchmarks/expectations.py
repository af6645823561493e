"""Right-hand sides whose expectations need special functions or numerical rules: time, and the error that it buys."""

import ctypes
from collections.abc import Callable

import numpy as np
from kernel import _repeated
from timing import Row, interleaved

from effdyn import derive, solve
from effdyn.solve.kernels.cache import load_generated
from effdyn.solve.kernels.kernel import generate
from effdyn.solve.kernels.layout import at_level, pack, parameter_vector, read_inputs

MODELS = {
    "logistic": derive.TeacherStudent(activation="linear", loss="logistic", labels="sign"),
    "relu": derive.TeacherStudent(activation="relu", second_layer="trained"),
    "tanh": derive.TeacherStudent(activation="tanh", teacher_activation="erf", second_layer="trained"),
}
LIMITS = {"logistic": 10e-6, "relu": 60e-6, "tanh": 2e-3}
"""Seconds per right-hand side at K = M = 2."""
PRECISION = {"logistic": 1e-8, "relu": 0.0, "tanh": 1e-5}
"""Of the numerical expectations, relative to the largest derivative; relu has none."""
CALLS = {"logistic": 100, "relu": 20, "tanh": 1}


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    return [row for name in MODELS for row in _rows(name, quick)]


def _rows(name: str, quick: bool) -> list[Row]:
    dynamics = MODELS[name].dynamics()
    calls = CALLS[name]
    function = solve.kernel(dynamics).function
    arrays = _arrays(dynamics)
    jobs = {"kernel": _job(_repeated(function), calls, *arrays)}
    if name == "relu":
        jobs["other"] = _job(_repeated(_without_sign4(dynamics)), calls, *arrays)
        against = "the same without sign4"
    else:
        jobs["other"] = _job(_repeated(function), calls, *_arrays(dynamics, level=1))
        against = "the finer rule"
    seconds = {n: s / calls for n, s in interleaved(jobs, 3 if quick else 20).items()}
    ratio = seconds["kernel"] / seconds["other"] if name == "relu" else seconds["other"] / seconds["kernel"]
    limit = LIMITS[name]
    rows = [
        Row(
            f"{name}, K = M = 2",
            1e6 * seconds["kernel"],
            "µs",
            ratio,
            against,
            f"<= {1e6 * limit:g} µs",
            seconds["kernel"] <= limit,
        )
    ]
    if dynamics.tables:
        error, allowed = _error(dynamics), PRECISION[name]
        rows.append(
            Row(f"{name}, error", error, "relative", error / allowed, "target", f"<= {allowed:g}", error <= allowed)
        )
    return rows


def _job(loop: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: loop(*arguments)


def _values(dynamics: derive.Dynamics) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return overlaps of random vectors and parameters of order one."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 8)) / np.sqrt(8)
    gram = vectors @ vectors.T
    known = {"Q": gram[:2, :2], "R": gram[:2, 2:], "T": gram[2:, 2:], "flip": np.array(0.1)}
    values = {
        q.name: known.get(q.name, rng.uniform(0.3, 1.2, [2] * len(q.shape)))
        for q in (*dynamics.states, *dynamics.parameters)
    }
    return {q.name: values[q.name] for q in dynamics.states}, {q.name: values[q.name] for q in dynamics.parameters}


def _arrays(dynamics: derive.Dynamics, level: int = 0) -> tuple[np.ndarray, ...]:
    """Return state, derivative, parameters with tables, and workspace."""
    inputs = at_level(dynamics, read_inputs(dynamics, *_values(dynamics)), level)
    y = pack(dynamics.states, inputs.y0)
    work = np.zeros(solve.kernel(dynamics).workspace_size(inputs.sizes))
    return y, np.empty_like(y), parameter_vector(dynamics, inputs, level), work


def _error(dynamics: derive.Dynamics) -> float:
    """Return the difference to the finer rule, relative to the largest derivative."""
    outputs = []
    for level in (0, 1):
        y, out, par, work = _arrays(dynamics, level)
        solve.kernel(dynamics)(0.0, y, out, par, work)
        outputs.append(out)
    return float(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[1]).max())


def _without_sign4(dynamics: derive.Dynamics) -> Callable[..., None]:
    """Return the kernel of the same source with a constant for the expectation of four signs."""
    source, _ = generate(dynamics, [(e.quantity, e.expr) for e in dynamics.drift], "drift")
    begin = source.index("def sign4(")
    end = source.index(":\n", begin) + 2
    source = f"{source[:end]}    return 0.25\n{source[end:]}"
    module = load_generated("without_sign4", source)
    function = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 4)(module.kernel.address)
    function.keep = module  # type: ignore[attr-defined]  # else its code is freed
    return function
