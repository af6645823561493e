"""The problem of the benchmarks: Saad and Solla's soft committee machine, of any size, nearly symmetric at first."""

from typing import Any

import numpy as np

from effdyn import derive


def model(activation: str = "erf") -> derive.TeacherStudent:
    """Return a student and teacher of that activation, second layers fixed."""
    return derive.TeacherStudent(activation=activation)


def start(K: int) -> dict[str, np.ndarray]:
    """Return students of different lengths that hardly know the teacher: the run passes the symmetric plateau."""
    return {"Q": np.diag(np.linspace(0.5, 0.6, K)), "R": 1e-3 * np.diag(np.arange(1.0, K + 1))}


def parameters(K: int, eta: float = 1.0) -> dict[str, Any]:
    """Return the parameters: isotropic teacher, unit second layers, no noise."""
    return {"eta": eta, "sigma": 0.0, "T": np.eye(K), "a": 1.0, "b": 1.0}
