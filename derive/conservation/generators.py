"""Linear maps θ' = Bθ along which φ does not change: symmetric ones are laws, skew ones rotations that φ cannot see.

Noether's correspondence for gradient flow: a symmetric B gives the law ½ θᵀBθ, a skew one none, but a charge of the
flow with momentum (see :mod:`.survival`).
"""

from collections.abc import Iterable

from .linear_algebra import Row, null_space
from .parametrisation import Parametrisation
from .polynomials import Field, Monomial
from .readable import shortened

Entry = tuple[int, int]
"""Row and column of a matrix."""
Matrix = dict[Entry, int]
"""A sparse matrix: its entries that are not zero."""
KINDS = ("any", "symmetric", "skew")


def generators(parametrisation: Parametrisation, kind: str = "any") -> tuple[Matrix, ...]:
    """Return a basis of all matrices B of one kind with ``(Bθ)·∇φ_k = 0`` for every function and all θ.

    Parameters
    ----------
    parametrisation : Parametrisation
    kind : str
        ``"any"``, ``"symmetric"`` or ``"skew"``.

    Returns
    -------
    tuple of dict
        The entries of each matrix, by row and column, which are numbers of parameters.

    Examples
    --------
    >>> from effdyn.derive.conservation.networks import linear_network_parametrisation
    >>> chain = linear_network_parametrisation((1, 1, 1))
    >>> generators(chain, "symmetric"), generators(chain, "skew")
    (({(0, 0): 1, (1, 1): -1},), ())
    """
    size = len(parametrisation.theta)
    unknowns = _unknowns(size, kind)
    gradients = parametrisation.gradients
    rows: dict[tuple[int, Monomial], Row] = {}
    for column, matrix in enumerate(unknowns):
        for k, field in enumerate(gradients):
            for monomial, coefficient in _moved(matrix, field):
                row = rows.setdefault((k, monomial), {})
                row[column] = row.get(column, 0) + coefficient
    found = shortened(null_space(list(rows.values()), len(unknowns)))
    return tuple({e: sign * c for n, c in v.items() for e, sign in unknowns[n].items()} for v in found)


def _unknowns(size: int, kind: str) -> list[Matrix]:
    if kind == "any":
        return [{(i, j): 1} for i in range(size) for j in range(size)]
    if kind == "symmetric":
        return [{(i, j): 1, (j, i): 1} for i in range(size) for j in range(i, size)]
    if kind == "skew":
        return [{(i, j): 1, (j, i): -1} for i in range(size) for j in range(i + 1, size)]
    raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")


def _moved(matrix: Matrix, field: Field) -> Iterable[tuple[Monomial, int]]:
    """Return the terms of (Bθ)·∇φ."""
    for (i, j), entry in matrix.items():
        for monomial, coefficient in field.get(i, {}).items():
            yield tuple(sorted((*monomial, j))), entry * coefficient
