"""What an audit found: the terms that differ, and a table of every term's coefficient."""

import math
import textwrap
from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, or one difference that stays unexplained.

    Attributes
    ----------
    equations : tuple of str
        The states in whose equations it is.
    what, where : str
        What differs, and in which term or terms.
    coefficient : float
        The least-squares coefficient of the predicted difference: 1 if it is exactly this. NaN for what is not
        explained.
    explained : float
        The part of the squared difference of these equations that all findings together explain, on states that were
        not used to find them. Of an unexplained difference, what other coefficients of the terms would explain.
    alternatives : tuple of str
        What would make the same difference at the sizes and parameters that were given.
    """

    equations: tuple[str, ...]
    what: str
    where: str
    coefficient: float
    explained: float
    alternatives: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether it says what the mistake is."""
        return not math.isnan(self.coefficient)

    def __str__(self) -> str:
        place = f" — in {self.where}" if self.where else ""
        others = "".join(f"\n  (or, the same here: {other})" for other in self.alternatives)
        return f"{', '.join(self.equations)}: {self.what}{place}{others}"


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The outcome of :func:`effdyn.validate.audit`; ``print`` it, ``assert audit.passed``.

    Attributes
    ----------
    passed : bool
        Whether every equation agrees with the derived one at every state, within the tolerance.
    findings : tuple of Finding
        What differs; empty if it passed.
    table : xarray.Dataset
        One row per term of the derivation, dim ``term``: ``equation``, ``expression``, ``coefficient`` (by least
        squares; 1 if as derived), ``spread`` (its standard deviation over sets of parameters: not zero where it
        depends on them), ``formula`` (what it is in the parameters, if that was recognised).
    differences : dict of str to float
        By state, the largest difference of its equation relative to the sum of the absolute values of its terms.
    tolerance : float
        What was allowed.
    states : int
        At how many states the equations were compared.
    """

    passed: bool
    findings: tuple[Finding, ...]
    table: xr.Dataset
    differences: dict[str, float]
    tolerance: float
    states: int

    def __repr__(self) -> str:
        return f"<Audit: {'passed' if self.passed else f'{len(self.findings)} findings'}>"

    def __str__(self) -> str:
        names = ", ".join(self.differences)
        if self.passed:
            worst = max(self.differences.values(), default=0.0)
            agreement = f"largest relative difference {worst:.1e} at {self.states} states"
            return f"The equations of {names} are as derived: {agreement}."
        count = len(self.findings)
        lines = [f"{count} {'difference' if count == 1 else 'differences'} from the derivation:"]
        for n, finding in enumerate(self.findings, start=1):
            head, *rest = str(finding).split("\n")
            lines += textwrap.wrap(head, 118, initial_indent=f"{n}. ", subsequent_indent="   ", break_long_words=False)
            lines += [f"   {line.strip()}" for line in rest]
            lines.append(
                f"   coefficient {finding.coefficient:.4g} (1 expected), explains {finding.explained:.4%}"
                if finding.named
                else f"   other coefficients of the derivation's terms would explain {finding.explained:.2%} of it"
            )
        sizes = ", ".join(f"{name} {size:.1e}" for name, size in self.differences.items())
        lines.append(f"Relative differences at {self.states} states (allowed {self.tolerance:.0e}): {sizes}")
        return "\n".join(lines)
