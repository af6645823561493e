"""Parametrisations of networks: linear ones as products of matrices, ReLU networks as path products."""

import itertools
import math
import operator
from collections.abc import Sequence

import sympy

from ..errors import ModelError
from .parametrisation import Parametrisation

MOST_PATHS = 20_000


def linear_network_parametrisation(widths: Sequence[int]) -> Parametrisation:
    """State a deep linear network: the loss depends on its weights through their product ``W_N ⋯ W_1`` alone.

    Parameters
    ----------
    widths : sequence of int
        Of all layers, inputs first: ``(3, 4, 2)`` has W1 of shape (4, 3) and W2 of shape (2, 4).

    Returns
    -------
    Parametrisation
        ``phi``: the entries of the product, row by row; ``layers``: the matrices, entries ``W1[i, j]`` from 1.

    Raises
    ------
    ModelError
        If there are fewer than two widths, or one is not a positive whole number.

    Examples
    --------
    >>> print(linear_network_parametrisation((1, 2, 1)).phi[0])
    W1[1, 1]*W2[1, 1] + W1[2, 1]*W2[1, 2]
    """
    widths = _checked(widths, 2)
    weights = _weights(widths)
    product = weights[0]
    for matrix in weights[1:]:
        product = (matrix * product).applyfunc(sympy.expand)
    title = f"linear network, widths {'-'.join(map(str, widths))}"
    return Parametrisation(phi=product, theta=weights, title=title)


def relu_network_parametrisation(widths: Sequence[int], biases: bool = False) -> Parametrisation:
    """State a ReLU network on a fixed pattern of active units: the loss depends on products of weights along paths.

    As every example switches other units off, each path counts by itself, not only their sum as in a linear network.
    Within a region where no pattern changes, gradient flow conserves what is found; across regions too, as laws are
    continuous.

    Parameters
    ----------
    widths : sequence of int
        Of all layers, inputs first; at least three.
    biases : bool
        Whether hidden and output units have biases ``b1[i]``, …: weights of an input that is always 1, and the
        beginnings of paths of their own. A bias shares the layer of the weights beside it.

    Raises
    ------
    ModelError
        If there are fewer than three widths, one is not a positive whole number, or there are too many paths to list.

    Examples
    --------
    >>> print(*relu_network_parametrisation((1, 2, 1), biases=True).phi, sep=",  ")
    W1[1, 1]*W2[1, 1],  W1[2, 1]*W2[1, 2],  W2[1, 1]*b1[1],  W2[1, 2]*b1[2],  b2[1]
    """
    widths = _checked(widths, 3)
    weights = _weights(widths)
    offsets = [_biases(n, size) if biases else [] for n, size in enumerate(widths[1:], start=1)]
    paths = [path for first in range(len(weights)) for path in _paths(widths, weights, offsets, first)]
    theta = [[*matrix, *offset] for matrix, offset in zip(weights, offsets, strict=True)]
    title = f"ReLU network{' with biases' if biases else ''}, widths {'-'.join(map(str, widths))}"
    return Parametrisation(phi=paths, theta=theta, title=title)


def _paths(
    widths: Sequence[int], weights: Sequence[sympy.Matrix], offsets: Sequence[Sequence[sympy.Expr]], first: int
) -> list[sympy.Expr]:
    """Return the products along paths from the inputs (``first`` = 0) and from the biases of layer ``first`` + 1."""
    starts: list[tuple[sympy.Expr, int]] = [(bias, unit) for unit, bias in enumerate(offsets[first])]
    if first == 0:
        matrix = weights[0]
        starts = [(matrix[i, j], i) for i, j in itertools.product(*map(range, matrix.shape))] + starts
    for matrix in weights[first + 1 :]:
        starts = [(product * matrix[k, i], k) for product, i in starts for k in range(matrix.rows)]
    return [product for product, _ in starts]


def _weights(widths: Sequence[int]) -> list[sympy.Matrix]:
    letters = [sympy.IndexedBase(f"W{n}", real=True) for n in range(1, len(widths))]
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return [
        sympy.Matrix(rows, columns, lambda i, j, w=w: w[i + 1, j + 1])
        for w, (rows, columns) in zip(letters, shapes, strict=True)
    ]


def _biases(layer: int, size: int) -> list[sympy.Expr]:
    base = sympy.IndexedBase(f"b{layer}", real=True)
    return [base[i] for i in range(1, size + 1)]


def _checked(widths: Sequence[int], least: int) -> tuple[int, ...]:
    accepted = f"at least {least} positive whole numbers, inputs first, such as {(3, 4, 2)[:least]}"
    try:
        sizes = tuple(operator.index(n) for n in widths)
    except TypeError:
        raise ModelError("widths", widths, accepted) from None
    if len(sizes) < least or min(sizes) < 1 or any(isinstance(n, bool) for n in widths):
        raise ModelError("widths", widths, accepted)
    if math.prod(sizes) > MOST_PATHS:
        raise ModelError("widths", widths, f"networks of at most {MOST_PATHS} paths")
    return sizes
