"""The gallery's catalogue: what can be reproduced. A new entry is a module with a ``reproduce`` function, and a line
here."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from effdyn.derive import ModelError
from effdyn.derive.errors import nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """A result that ``effdyn reproduce NAME`` remakes.

    Attributes
    ----------
    name : str
    module : str
        The module in this room whose ``reproduce(out, quick, progress)`` does it and returns whether every verdict
        passed.
    source : str
        The publication that it is, or that it goes on from.
    summary : str
        What is remade, in one line.
    """

    name: str
    module: str
    source: str
    summary: str


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "saad-solla",
            "saad_solla",
            "Saad & Solla, Phys. Rev. E 52, 4225 (1995)",
            "symmetric plateau and specialisation of soft committee machines, K = M = 2 and 3",
        ),
        Entry(
            "relu-committee",
            "relu_committee",
            "Goldt et al., NeurIPS 2019, with ReLU units in closed form at finite learning rate",
            "specialisation, noise floor and balance of layers of ReLU committees, K = 3, M = 2, both layers trained",
        ),
        Entry(
            "logistic-teacher",
            "logistic_teacher",
            "Biehl & Riegler, Europhys. Lett. 28, 525 (1994), with the logistic and the hinge loss",
            "classification by one unit: logistic, hinge and perceptron loss, t^(-1/3) without noise, floors with it",
        ),
        Entry(
            "min-implicit-bias",
            "min_implicit_bias",
            "Min, Tarmoun, Vidal & Mallada, ICML 2021",
            "two-layer linear networks: bounds on the loss, distance from the min-norm solution against width",
        ),
        Entry(
            "lazy-rich",
            "lazy_rich",
            "Min, Tarmoun, Vidal & Mallada, ICML 2021, with both sides of the crossover in closed form",
            "two-layer linear networks: change of the tangent kernel and distance, on one curve from lazy to rich",
        ),
        Entry(
            "advani-saxe",
            "advani_saxe",
            "Advani, Saxe & Sompolinsky, Neural Networks 132, 428 (2020), and for any covariance",
            "least squares by gradient flow on noisy data: overtraining, its peak at d = n, and early stopping",
        ),
        Entry(
            "sgd-volterra",
            "sgd_volterra",
            "Paquette, Lee, Pedregosa & Paquette, COLT 2021",
            "SGD on random data: Volterra equation up to the edge of stability, exact recursions, errors of 1/n",
        ),
        Entry(
            "plateau-times",
            "plateau_times",
            "Saad & Solla, Phys. Rev. E 52, 4225 (1995), with escape rates from the Jacobian",
            "escape times from the symmetric plateau grow as ln(d)/(2 lambda), K = M = 2, d from 100 to 100 000",
        ),
        Entry(
            "goldt-2019",
            "goldt_2019",
            "Goldt, Advani, Saxe, Krzakala & Zdeborova, NeurIPS 2019",
            "over-parameterised students: the error at rest grows with K, stays, or falls, by layers trained",
        ),
        Entry(
            "arnaboldi-mean-field",
            "arnaboldi_mean_field",
            "Arnaboldi, Stephan, Krzakala & Loureiro, COLT 2023",
            "wide students: learning curves at p units go over into the mean field, at distance 1/p",
        ),
        Entry(
            "veiga-phases",
            "veiga_phases",
            "Veiga, Stephan, Loureiro, Krzakala & Zdeborova, NeurIPS 2022",
            "width d^kappa, learning rate d^-delta: orders of the terms, and powers of d of exact chains in each phase",
        ),
        Entry(
            "finite-size",
            "finite_size",
            "Saad & Solla, Phys. Rev. E 52, 4225 (1995), to the next order in 1/d",
            "runs at d = 20 to 10 000 in predicted bands; mean and variance of what is left over, times d, collapse",
        ),
        Entry(
            "saxe",
            "saxe",
            "Saxe, McClelland & Ganguli, ICLR 2014, and from random layers",
            "deep linear networks learn a hierarchy one singular mode after another, deeper ones after longer plateaus",
        ),
    )
}


def reproduce(name: str, out: str | Path | None = None, quick: bool = False, progress: bool = True) -> bool:
    """Remake a result: derive, solve, simulate, compare, draw, typeset.

    Parameters
    ----------
    name : str
        One of :data:`ENTRIES`.
    out : path, optional
        Folder for everything that is produced; ``effdyn-<name>`` in the current folder by default.
    quick : bool
        Smaller simulations, for a first look.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    bool
        Whether every verdict passed.

    Raises
    ------
    ModelError
        If there is no such entry.

    Examples
    --------
    >>> from effdyn import gallery
    >>> list(gallery.ENTRIES)[:3]
    ['saad-solla', 'relu-committee', 'logistic-teacher']
    """
    if name not in ENTRIES:
        raise ModelError("name", name, f"one of {', '.join(map(repr, ENTRIES))}{nearest(name, ENTRIES)}")
    folder = Path(out) if out is not None else Path(f"effdyn-{name}")
    folder.mkdir(parents=True, exist_ok=True)
    module = import_module(f"effdyn.gallery.{ENTRIES[name].module}")
    return bool(module.reproduce(folder, quick, progress))
