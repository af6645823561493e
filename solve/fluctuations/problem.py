"""What the compiled right-hand side of the order-1/d theory needs to know of a model at given parameters."""

import numpy as np

from effdyn.derive import Dynamics
from effdyn.derive.fluctuations import Fluctuations
from effdyn.derive.numerical.rules import joint_rule

from ..derivatives import machine
from ..derivatives.program import program
from ..kernels.kernel import kernel, observables_kernel
from ..kernels.layout import Inputs, at_level, pack, packed_length, parameter_vector, unpack
from ..kernels.memory import node_sizes
from ..kernels.unroll import LONGEST
from .fields import field_count, field_law
from .kicks import by_rule_of
from .rhs import System, work_size
from .step import step_for

LEVEL = 0
"""Of the rule over the fields of an example: about 1e-5 of D for up to three fields, 1e-3 beyond."""
LEVEL_OF_KINKS = 1
"""Of the rule where increments have kinks."""


def problem(theory: Fluctuations, inputs: Inputs, level: int | None = None, shift: int = 0) -> System:
    """Return what the right-hand side needs to know; ``level`` and ``shift`` are those of the rule over examples."""
    dynamics = theory.dynamics
    drift = kernel(dynamics, inputs.sizes)
    n = sum(packed_length(q, inputs.sizes) for q in dynamics.states)
    own, corrections = (_parameters(part, inputs, shift) for part in (dynamics, theory.correction))
    operations = _operations(theory, inputs, n, own)
    tangent = None if operations.size or not theory.tangent else kernel(theory.tangent)
    offset = theory.offset and kernel(theory.offset)
    kernels = [drift, tangent, kernel(theory.correction), observables_kernel(theory.increment), offset]
    full_of = np.concatenate([np.ravel(a) for a in unpack(dynamics.states, np.arange(float(n)), inputs.sizes).values()])
    fields, active = field_count(theory, inputs), sum(inputs.sizes[str(f.size)] for f in theory.active)
    noisy = inputs.params.get("sigma", 0.0) > 0
    nodes, weights = _rule(theory, active, theory.noise_nodes if noisy else 1, level, shift)
    by_rule = by_rule_of(theory, inputs)
    execution = machine.work_size(operations) if operations.size else 0
    inner = max(LONGEST, execution, *(k.workspace_size(inputs.sizes) for k in kernels if k))
    return System(
        addresses=tuple(k.address if k else 0 for k in kernels),
        program=operations,
        n=n,
        full_of=full_of,
        fields=fields,
        law=field_law(theory, inputs),
        active=active,
        drift_par=own,
        correction_par=corrections,
        offset_par=_parameters(theory.offset, inputs, shift) if theory.offset else np.zeros(0),
        sizes=len(dynamics.sizes),
        extra_sizes=len(node_sizes(dynamics.tables)),
        nodes=nodes,
        weights=weights,
        batch=float(inputs.params[str(theory.batch)]) if theory.batch.free_symbols else 1.0,
        by_rule=by_rule,
        labelled=theory.labelled,
        moves=_moves(theory, inputs),
        rescaled=theory.rescaled,
        step=step_for(dynamics, dynamics.drift),
        n_work=work_size(n, len(full_of), fields, len(own), by_rule, inner),
    )


def derivatives_of_drift(system: System) -> str:
    """Return how the first and second derivatives of the drift are had."""
    if system.program.size:
        return "exact: of each operation"
    if system.addresses[1]:
        return "first: exact, symbolic; second: differences of the drift"
    return "differences of the drift"


def _operations(theory: Fluctuations, inputs: Inputs, n: int, par: np.ndarray) -> np.ndarray:
    """Return the operations of the drift at these parameters, to be executed with their derivatives; empty if not."""
    sizes = tuple(inputs.sizes[str(size)] for size in theory.dynamics.sizes)
    found = program(theory.dynamics, "drift", sizes, n)
    return found.encoded(par) if found else np.zeros(0)


def settled(theory: Fluctuations, inputs: Inputs, times: np.ndarray, states: np.ndarray, start: float) -> np.ndarray:
    """Return the offset of overlaps by momentum buffers at times (T,) and packed states (T, n), (T, n).

    At ``start`` buffers are 0 and so is it; after that they have relaxed, within 1/(1 − β) steps.
    """
    assert theory.offset is not None
    compiled = kernel(theory.offset)
    par, work = _parameters(theory.offset, inputs, 0), np.zeros(compiled.workspace_size(inputs.sizes))
    found = np.zeros_like(states)
    for row, t, state in zip(found, times, states, strict=True):
        if t != start:
            compiled(t, state, row, par, work)
    return found


def _parameters(part: Dynamics, inputs: Inputs, shift: int) -> np.ndarray:
    """Return the parameters of one piece of the theory, with the tables of its own numerical expectations."""
    return parameter_vector(part, at_level(part, inputs, 0, shift), 0, shift)


def _moves(theory: Fluctuations, inputs: Inputs) -> np.ndarray:
    """Return 1 for each packed state but the squared lengths of vectors that are rescaled to them, 0 for these."""
    shapes = {q.name: inputs.y0[q.name].shape for q in theory.dynamics.states}
    moving = {name: np.ones(shape) - (np.eye(*shape) if name in theory.held else 0) for name, shape in shapes.items()}
    return pack(theory.dynamics.states, moving)


def _rule(
    theory: Fluctuations, fields: int, noise_nodes: int, level: int | None, shift: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes of standard normal fields, with a column for the label noise and one for labels ±1, and weights."""
    if level is None:
        level = LEVEL_OF_KINKS if theory.kinked else LEVEL
    joint = int(noise_nodes == 0)
    nodes, weights = joint_rule(fields + joint, "rough" if theory.kinked else "smooth", level, shift)
    if not joint:
        noise, probability = np.polynomial.hermite_e.hermegauss(noise_nodes)
        nodes, weights = _with_column(nodes, weights, noise, probability / probability.sum())
    if theory.labelled:  # both with weight 1: their probabilities come with the increments
        nodes, weights = _with_column(nodes, weights, np.array([-1.0, 1.0]), np.ones(2))
    return nodes, weights


def _with_column(
    nodes: np.ndarray, weights: np.ndarray, values: np.ndarray, their: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the product of a rule with one over a further variable."""
    both = np.column_stack([np.repeat(nodes, len(values), axis=0), np.tile(values, len(nodes))])
    return both, np.outer(weights, their).ravel()
