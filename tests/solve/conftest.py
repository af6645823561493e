"""What tests of kernels share: how one is called, with what it must not touch guarded."""

import math

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
