"""What tests share: how a kernel is called, with what it must not touch guarded; problems for integrators."""

import math

import numba
import numpy as np
import pytest

from effdyn.solve.kernels.layout import at_level, pack, parameter_vector


@pytest.fixture
def run():
    """The output of a kernel at checked inputs, packed."""
    return run_guarded


def run_guarded(compiled, dynamics, inputs, level=0):
    inputs = at_level(dynamics, inputs, level) if level else inputs
    y, par = pack(dynamics.states, inputs.y0), parameter_vector(dynamics, inputs, level)
    shapes = [tuple(inputs.sizes[str(s)] for s in q.shape) for q in compiled.outputs]
    length = sum(
        s[0] * (s[0] + 1) // 2 if q.symmetric else math.prod(s) for q, s in zip(compiled.outputs, shapes, strict=True)
    )
    size = compiled.workspace_size(inputs.sizes)
    out, work = np.full(length + 8, -777.0), np.full(size + 8, np.nan)  # NaN: nothing may be read unwritten
    work[size:] = -777.0
    compiled(0.0, y, out, par, work)
    assert (out[length:] == -777.0).all(), "wrote beyond its output"
    assert (work[size:] == -777.0).all(), "wrote beyond its workspace"
    return out[:length]


def compile_function(function):
    """As what generated kernels are: void f(double t, double *y, double *dy, double *par, double *work)."""
    pointer = numba.types.CPointer(numba.float64)
    return numba.cfunc(numba.void(numba.float64, *[pointer] * 4), error_model="numpy")(function)


@pytest.fixture(scope="session")
def compiled():
    """The decorator that compiles a right-hand side."""
    return compile_function


@pytest.fixture(scope="session")
def explicit_time():
    @compile_function
    def rhs(t, y, dy, par, work):
        """From (1, 1) at 0, solved by exp(sin t) and 1 / (1 + t²/2)."""
        dy[0] = y[0] * math.cos(t)
        dy[1] = -t * y[1] * y[1]

    return rhs


@pytest.fixture(scope="session")
def ring():
    @compile_function
    def rhs(t, y, dy, par, work):
        """Seven components, nonlinear, neither stiff nor soluble."""
        for i in range(7):
            dy[i] = (y[(i + 1) % 7] - y[(i + 6) % 7]) * (1 + 0.1 * y[i]) - 0.05 * y[i] ** 3

    return rhs


@pytest.fixture(scope="session")
def oscillator():
    @compile_function
    def rhs(t, y, dy, par, work):
        dy[0] = y[1]
        dy[1] = -y[0]

    return rhs


@pytest.fixture(scope="session")
def root():
    @compile_function
    def rhs(t, y, dy, par, work):
        """From 1 at 0, solved by (1 - t/2)² until t = 2, where the domain ends."""
        dy[0] = -math.sqrt(y[0])

    return rhs
