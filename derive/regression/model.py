"""Linear regression as a model: how it is trained, and on inputs of which covariance.

Sources: Advani, Saxe & Sompolinsky, Neural Networks 132, 428 (2020), gradient flow; Paquette, Lee, Pedregosa &
Paquette, COLT 2021, SGD over a finite data set. One-pass SGD is derived from its update.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from ..dynamics import Dynamics, Quantity
from ..errors import ModelError, nearest
from .gradient_flow import gradient_flow
from .multi_pass import multi_pass
from .one_pass import one_pass
from .quantities import ETA, RATIO, SIGMA, Spectrum
from .values import check_values

TRAININGS: dict[str, tuple[Callable[[Spectrum, str, object], Dynamics], tuple[str, ...]]] = {
    "one-pass": (one_pass, ("high-dimensional", "finite-d", "volterra")),
    "multi-pass": (multi_pass, ("volterra", "finite-n", "high-dimensional")),
    "gradient-flow": (gradient_flow, ("high-dimensional",)),
}
"""By the training: what derives its equations, and the limits that this knows, the default first."""
COVARIANCES = ("isotropic", "general")


@dataclass(frozen=True, slots=True)
class LinearRegression:
    """Least squares in d dimensions: y = w*·x + σ ζ, fitted by w·x, with Gaussian inputs x.

    Parameters
    ----------
    training : {"one-pass", "multi-pass", "gradient-flow"}
        ``"one-pass"``: w ← w + (η/d) (y − w·x) x with a fresh example each step; t = steps/d. ``"multi-pass"``: w ← w +
        (η/n) (y − w·x) x with an example drawn at random, with replacement, from n; t = steps/n. ``"gradient-flow"``:
        dw/dt = −∇ of the mean over n examples of ½(y − w·x)²; t = η·steps of gradient descent with a small rate η.
    covariance : {"isotropic", "general"}
        Of the inputs: the identity, or with eigenvalues ``lam`` (L,) on fractions ``p`` (L,) of the d directions. With
        ``"multi-pass"`` these are the eigenvalues of X^T X/n itself, and its singular vectors are random.

    Raises
    ------
    ModelError
        For other arguments.

    Notes
    -----
    The initial error v = w − w* is stated by ``c`` = |v|², by class of directions where the covariance is general.
    ``eg`` = ½ E (v·x)² over fresh inputs, ``train_loss`` = the mean over the training set of ½(y − w·x)².

    Examples
    --------
    >>> from effdyn.derive.regression import LinearRegression
    >>> model = LinearRegression("one-pass", covariance="general")
    >>> print(model.dynamics()["c"])
    eta**2*sigma**2*lam[l]*p[l] + eta**2*lam[l]*p[l]*Sum(c[j]*lam[j], (j, 1, L)) - 2*eta*c[l]*lam[l]
    >>> eval(repr(model)) == model
    True
    """

    training: str = "one-pass"
    covariance: str = "isotropic"

    def __post_init__(self) -> None:
        _check("training", self.training, tuple(TRAININGS))
        _check("covariance", self.covariance, COVARIANCES)

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits that :meth:`dynamics` knows, the default first."""
        return TRAININGS[self.training][1]

    @property
    def spectrum(self) -> Spectrum:
        """The classes of directions."""
        return Spectrum(self.covariance == "general")

    @property
    def states(self) -> tuple[Quantity, ...]:
        """What is given at t = 0: the squared error, by class."""
        return (self.spectrum.error,)

    @property
    def parameters(self) -> tuple[Quantity, ...]:
        """What a simulation needs besides d: the learning rate or d/n, or both, the spectrum and the noise."""
        rate = () if self.training == "gradient-flow" else (ETA,)
        ratio = () if self.training == "one-pass" else (RATIO,)
        return (*rate, *ratio, *self.spectrum.parameters, SIGMA)

    def dynamics(self, limit: str | None = None, moments: str = "auto") -> Dynamics:
        """Derive the equations of the error.

        Parameters
        ----------
        limit : str, optional
            One-pass: ``"high-dimensional"`` (d → ∞, an ODE), ``"finite-d"`` (the exact recursion, with ``d`` as a
            parameter), ``"volterra"`` (the former as an integral equation for ``eg``). Multi-pass: ``"volterra"`` (an
            integral equation for ``train_loss``), ``"high-dimensional"`` (the same as an ODE, for a given spectrum),
            ``"finite-n"`` (the exact recursion of the second moments of all n residuals, for a given Gram matrix).
            Gradient flow: ``"high-dimensional"`` (explicit formulas). The first is the default.
        moments : {"auto"}
            There are no moments without closed form here.

        Returns
        -------
        Dynamics
            Its ``kind`` says which of these it is.

        Raises
        ------
        ModelError
            For a limit that this training does not have.

        Examples
        --------
        >>> LinearRegression("one-pass").dynamics("finite-d").kind
        'map'
        """
        limit = self.limits[0] if limit is None else limit
        _check("limit", limit, self.limits)
        _check("moments", moments, ("auto",))
        return _derive(self, limit)

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Refuse values, arrays by name, that no data have.

        Raises
        ------
        ModelError
            If d/n is zero, or so far from 1 that the edges of the spectrum coincide in rounding; fractions add up to
            more than 1; n examples would have more than n eigenvalues; or second moments have negative eigenvalues.
        """
        check_values(values, self.training, self.covariance)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain text."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to_json(self) -> str:
        """Return the model as JSON text, which :func:`effdyn.derive.model_from_json` reads."""
        from ..export.serialize import model_to_json

        return model_to_json(self)


@lru_cache(maxsize=32)
def _derive(model: LinearRegression, limit: str) -> Dynamics:
    return TRAININGS[model.training][0](model.spectrum, limit, model)


def _check(argument: str, given: Any, accepted: tuple[str, ...]) -> None:
    if given not in accepted:
        raise ModelError(argument, given, f"one of {', '.join(map(repr, accepted))}{nearest(str(given), accepted)}")
