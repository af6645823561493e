"""The committee machine by one-pass SGD in other people's tools, written plainly: one thread, a loop over steps.

Each function returns what makes some steps from given weights over √d, in place, or None, said on the terminal, where
its tool is missing.
"""

import ctypes
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import erf

SOURCE = Path(__file__).with_name("plain_simulator.cpp")
Trainer = Callable[[np.ndarray, np.ndarray, float, int], None]
"""From student and teacher, (K, d) and (M, d), eta and a number of steps."""


def numpy() -> Trainer:
    """Return what trains in NumPy, in double precision."""
    rng = np.random.default_rng(1)

    def train(student: np.ndarray, teacher: np.ndarray, eta: float, steps: int) -> None:
        d = student.shape[1]
        for _ in range(steps):
            x = rng.standard_normal(d)
            h = student @ x
            error = erf(teacher @ x / math.sqrt(2)).sum() - erf(h / math.sqrt(2)).sum()
            slope = math.sqrt(2 / math.pi) * np.exp(-(h**2) / 2)
            student[:] += np.outer(eta / d * error * slope, x)

    return train


def cpp(normals: str) -> tuple[Trainer, Callable[[np.ndarray], None]] | None:
    """Return what trains and what draws normal numbers, by g++: ``"standard"`` (std::normal_distribution, fed by
    mt19937_64) or ``"ziggurat"``. With -ffast-math, without which sums are not vectorised.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        print("no C++ compiler (g++): its rows are left out", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "plain.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        chosen = ["-DZIGGURAT"] if normals == "ziggurat" else []
        subprocess.run([compiler, *flags, *chosen, "-o", str(library), str(SOURCE)], check=True, timeout=60)
        loaded = ctypes.CDLL(str(library))  # stays in memory
    size, real = ctypes.c_size_t, ctypes.c_double

    def train(student: np.ndarray, teacher: np.ndarray, eta: float, steps: int) -> None:
        (K, d), M = student.shape, teacher.shape[0]
        loaded.train(_pointer(student), _pointer(teacher), size(K), size(M), size(d), real(eta), size(steps))

    def draw(out: np.ndarray) -> None:
        loaded.draw(_pointer(out), size(out.size))

    return train, draw


def pytorch() -> Trainer | None:
    """Return what trains in PyTorch, in its default single precision."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its row is left out", file=sys.stderr)
        return None
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)

    def train(student: np.ndarray, teacher: np.ndarray, eta: float, steps: int) -> None:
        w, v = torch.from_numpy(student).float(), torch.from_numpy(teacher).float()
        d = w.shape[1]
        with torch.no_grad():
            for _ in range(steps):
                x = torch.randn(d, generator=generator)
                h = w @ x
                error = torch.erf(v @ x / math.sqrt(2)).sum() - torch.erf(h / math.sqrt(2)).sum()
                slope = math.sqrt(2 / math.pi) * torch.exp(-(h**2) / 2)
                w += torch.outer(eta / d * error * slope, x)
        student[:] = w.numpy()

    return train


def _pointer(array: np.ndarray) -> ctypes.Array:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
