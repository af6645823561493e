"""Linear networks' equations as a NumPy module, LaTeX, JSON and an article: the same numbers as the kernels."""

import itertools
import types

import numpy as np
import pytest

from effdyn import derive, solve
from effdyn.solve.kernels.layout import pack, packed_length, parameter_vector, read_inputs, unpack
from effdyn.solve.kernels.reference import Interpreter

CASES = [
    (derive.LinearNetwork(), "full"),
    (derive.LinearNetwork(depth=3, rates="layerwise", weight_decay=True), "full"),
    (derive.LinearNetwork(), "principal"),
    (derive.LinearNetwork(), "gram-null"),
    (derive.LinearNetwork(inputs="whitened", rates="layerwise", weight_decay=True), "gram"),
    (derive.LinearNetwork(), "modes"),
    (derive.LinearNetwork(), "strengths"),
    (derive.LinearNetwork(depth=3), "strengths"),
    (derive.LinearNetwork(depth=3), "chain"),
    (derive.LinearNetwork(inputs="whitened"), "riccati"),
    (derive.LinearNetwork(), "end-to-end"),
    (derive.LinearNetwork(depth=3, inputs="whitened"), "end-to-end"),
    (derive.LinearNetwork(rates="layerwise"), "neuron"),
    (derive.LinearNetwork(inputs="whitened"), "neuron-chain"),
]
SIZES = dict(zip(("D", "h", "h_1", "h_2", "m", "r", "q", "p"), itertools.count(2), strict=False))


def values(dyn, rng):
    """Positive random arrays, symmetric where the quantity is."""
    drawn = {}
    for q in (*dyn.states, *dyn.parameters):
        array = rng.uniform(0.4, 1.5, [SIZES[str(s)] for s in q.shape])
        drawn[q.name] = (array + array.T) / 2 if q.symmetric else array
    return {q.name: drawn[q.name] for q in dyn.states}, {q.name: drawn[q.name] for q in dyn.parameters}


@pytest.mark.parametrize(("network", "reduction"), CASES, ids=lambda case: str(case))
def test_exports_and_kernels_agree(network, reduction, rng, tmp_path):
    dyn = network.dynamics(reduction)
    y0, params = values(dyn, rng)
    expected = Interpreter(dyn, {**y0, **params}).arrays(dyn.equations)
    module = types.ModuleType("exported")
    exec(dyn.write(tmp_path / "equations.py").read_text(), module.__dict__)
    found = module.rhs(0.0, y0, params) | module.observables(y0, params)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-12, err_msg=name)
    assert read_inputs(dyn, y0, params).sizes.items() <= SIZES.items()
    assert derive.dynamics_from_json(dyn.write(tmp_path / "equations.json").read_text()) == dyn


@pytest.mark.parametrize(("network", "reduction"), CASES, ids=lambda case: str(case))
def test_kernels_equal_the_reference(network, reduction, rng):
    dyn = network.dynamics(reduction)
    y0, params = values(dyn, rng)
    inputs = read_inputs(dyn, y0, params)
    kernel = solve.kernel(dyn)
    out = np.empty(sum(packed_length(q, inputs.sizes) for q in dyn.states))
    work = np.empty(kernel.workspace_size(inputs.sizes))
    kernel(0.0, pack(dyn.states, inputs.y0), out, parameter_vector(dyn, inputs), work)
    found = unpack(dyn.states, out[None], inputs.sizes)
    for name, value in Interpreter(dyn, {**y0, **params}).arrays(dyn.drift).items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-11, atol=1e-12, err_msg=name)
