"""The law of the local fields of a fresh example: their covariance and means, which are affine in the states.

Overlaps are covariances, biases and overlaps with the inputs' mean are means, at most with constant factors. So the law
is one matrix, read off once by arrays; compiled code needs no more. Knows nothing of which models have which fields.
"""

import numpy as np

from effdyn.derive import ModelError
from effdyn.derive.fluctuations import Fluctuations

from .kernels.gram import Arrays, block_of, gram_matrix
from .kernels.layout import Inputs, packed_length, unpack


def field_law(theory: Fluctuations, inputs: Inputs) -> np.ndarray:
    """Return the coefficients of covariance and means of all fields, shape (N² + N, n + 1).

    A row for each entry of the covariance, row by row, then for each mean; a column for each of the n packed states,
    then the constant.
    """
    states = theory.dynamics.states
    n = sum(packed_length(q, inputs.sizes) for q in states)
    corners = np.vstack([np.eye(n), np.zeros(n)])
    arrays = inputs.params | unpack(states, corners, inputs.sizes)
    covariance, mean = covariance_of(theory, arrays), means_of(theory, arrays, inputs)
    lead = (n + 1,)
    covariance, mean = (np.broadcast_to(a, lead + a.shape[-k:]) for a, k in ((covariance, 2), (mean, 1)))
    values = np.concatenate([covariance.reshape(n + 1, -1), mean], axis=1)
    values[:-1] -= values[-1]
    return values.T


def covariance_of(theory: Fluctuations, arrays: Arrays) -> np.ndarray:
    """Return the covariance of the fields, (…, N, N), those on which functions depend first.

    Raises
    ------
    ModelError
        If it is not made of order parameters by sums of products.
    """
    found = gram_matrix(theory, arrays)
    if found is None:
        raise ModelError("dynamics", theory.dynamics.title, "fields whose covariance is made of the order parameters")
    return found


def means_of(theory: Fluctuations, arrays: Arrays, inputs: Inputs) -> np.ndarray:
    """Return the means of the fields, (…, N)."""
    laws = dict(theory.mean)
    parts = []
    for family in theory.families:
        size = int(np.prod([inputs.sizes.get(str(s), s) for s in np.atleast_1d(family.size)], dtype=int))
        law = laws.get(str(family.base))
        found = np.zeros(size) if law is None else block_of(law, arrays)
        if found is None:
            raise ModelError("dynamics", theory.dynamics.title, "fields whose means are made of the order parameters")
        parts.append(found)
    lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return np.concatenate([np.broadcast_to(part, lead + part.shape[-1:]) for part in parts], axis=-1)
