"""What can go wrong between a stated model and its equations, each with its facts as attributes."""

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """An argument that does not state a model: names the argument, what was given and what is accepted.

    Attributes
    ----------
    argument : str
        Name of the argument at fault.
    given : object
        What was passed.
    accepted : str
        What would be accepted.
    """

    def __init__(self, argument: str, given: object, accepted: str) -> None:
        self.argument, self.given, self.accepted = argument, given, accepted
        super().__init__(f"{argument} = {given!r} is not accepted: {accepted}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.argument, self.given, self.accepted)


class Described(str):
    """A description of what was given, where the thing itself would say less; prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class NotYet(NotImplementedError):
    """An option that effdyn is designed for but does not have yet, by its name.

    Attributes
    ----------
    option : str
        Name of the option.
    instead : str
        What works today.
    """

    def __init__(self, option: str, instead: str) -> None:
        self.option, self.instead = option, instead
        super().__init__(f"{option} is not available yet: {instead}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.option, self.instead)


class NoClosedForm(ValueError):
    """A Gaussian expectation that the rules cannot reduce.

    Attributes
    ----------
    moment : str
        The expectation, as it prints.
    reason : str
        What stood in the way.
    instead : str
        What would work.
    """

    def __init__(self, moment: str, reason: str, instead: str) -> None:
        self.moment, self.reason, self.instead = moment, reason, instead
        super().__init__(f"{moment} has no closed form: {reason}.\n  {instead}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.moment, self.reason, self.instead)


class CertificateError(ArithmeticError):
    """A closed form that differs from an independent numerical integral: an error of effdyn's own.

    Attributes
    ----------
    moment : str
        The expectation, as it prints.
    covariance, mean : tuple
        Where they differ.
    form, reference, error : float
        The value of the closed form, the integral, and the error of the integral.
    """

    def __init__(
        self,
        moment: str,
        covariance: tuple[tuple[float, ...], ...],
        mean: tuple[float, ...],
        form: float,
        reference: float,
        error: float,
    ) -> None:
        self.moment, self.covariance, self.mean = moment, covariance, mean
        self.form, self.reference, self.error = form, reference, error
        super().__init__(
            f"the closed form of {moment} is wrong: at covariance {covariance} and mean {mean} it is {form!r}, "
            f"while numerical integration gives {reference!r} ± {error:.1e}.\n"
            '  Please report this; until it is mended, moments="numeric" does without the closed form.'
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.moment, self.covariance, self.mean, self.form, self.reference, self.error)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the known name closest to ``name``, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
