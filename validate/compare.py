"""Does a simulation agree with theory? Every observable at every time, in standard errors, comparisons counted.

Knows nothing of how either was made: two labelled Datasets go in, a Verdict comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from .comparable import (
    by_size,
    check_attributes,
    check_dimension,
    check_number,
    check_order,
    check_times,
    input_dimensions,
    is_deterministic,
    names_compared,
    with_time,
)
from .decision import decide, describe_simulation, describe_theory, state_criterion, state_reason, summarise
from .deviations import flatten, measure_deviations, quantile
from .fluctuations import check_start, compare_variances, has_fluctuations, judge_variances, of_limit, predicted
from .joint import joint_tests
from .power import measure_power
from .time_shift import explain_by_shift, fit_shifts
from .verdict import Verdict

NUMERICAL = 1e-9
"""Quadrature and rounding, per unit of an observable's scale."""
GROWTH = 100.0
"""Integration errors over rtol, measured along escapes from a plateau; see ``solve.integrate``."""


def compare(
    theory: xr.Dataset,
    simulation: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    level: float = 1e-6,
    bias: float = 1.0,
    resolution: float = 0.25,
    numerical: float | None = None,
    escape: xr.Dataset | None = None,
) -> Verdict:
    """Compare the mean over independent runs with theory, at every time and for every component of every observable.

    Parameters
    ----------
    theory : xarray.Dataset
        From ``solve.integrate`` with ``t_eval=simulation.t``: variables over ``t`` and units. If it is a solution of
        ``dynamics.fluctuations()``, means are compared with X + X_mean_correction/d and variances over runs with
        X_variance/d; see the notes.
    simulation : xarray.Dataset
        From ``validate.simulate``: the same variables, with dims ``run`` (or means and ``<name>_std``) and perhaps
        ``d``.
    variables : sequence of str, optional
        What to compare; by default the states, ``eg`` or ``error_rate``, and ``loss`` unless that is ``eg`` and a
        constant. The cosines say nothing that these do not, and are compared if they are named here.
    level : float
        Probability, at most, of FAIL where theory is right up to the stated bias: for the whole verdict, not per
        comparison.
    bias : float
        The theory is the limit d → ∞: at finite d it may be off by ``bias/d``, in the observable's own units. The terms
        of order η that gradient flow also drops are not covered. To order 1/d, means may be off by ``bias·max|m|/d²``
        and variances by ``bias·n·max(C)/d²``, with the largest m and C of each observable, and n fluctuating
        coordinates: what is assumed of the next order at one d. Of several d that of variances is fitted, and
        multiplied by ``bias``.
    resolution : float
        The verdict is UNDECIDED unless an error of this fraction of an observable's scale would have been caught.
    numerical : float, optional
        Error of the numbers themselves (integration, quadrature), per unit of the observable's scale, added to every
        tolerance; by default 100 times the ``rtol`` that theory states, because errors grow by about that along an
        escape from a plateau, and at least 1e-9. What a theory with numerical expectations states as their error is
        added. Deviations within it count as agreement, and as nothing else: not in
        "max |z|", "worst" or exponents.
    escape : xarray.Dataset, optional
        What ``solve.plateau`` returns, with the ``rate`` of escape. A deviation that is only a shift of
        time, of at most two standard deviations of the escape times it predicts, is then UNDECIDED instead of FAIL.

    Returns
    -------
    Verdict

    Raises
    ------
    NotComparable
        Clocks, times, variables, sizes, parameters, initial values or models differ, or values are not finite.

    Notes
    -----
    *One d.* Each comparison demands ``|mean − theory| <= z·SE + bias/d``, with SE = s/√n, s the standard deviation
    over n runs (ddof=1), and z the two-sided quantile of Student's t with n − 1 degrees of freedom (because s is
    estimated) at ``level/N``: Bonferroni over the N comparisons, which holds however they depend on each other. It
    supposes runs that are about normal; where the time of escape from a plateau spreads they are not, and few runs
    are then not enough. Symmetric duplicates (``Q[2,1]``) and what is constant by construction (exact initial
    overlaps) do not count. A quantity that is the same in all runs is granted neither noise nor bias, only
    ``numerical``, unless the simulation is deterministic altogether (gradient descent with steps eta, whose size d is
    1/eta): then ``z`` is in units of what finite steps are granted, and with three or more steps that is not ``bias``
    but read off the simulations: the largest coefficient of eta² of a parabola through them, times 1.5.

    *Several d.* The deviation is fitted by c0 + c1/d, and ``|c0| <= z·SE(c0) + bias·(|Σ w/d²| + Σ |w| Δt)``. Here
    c0 = Σ w·deviation with Σ w = 1, Σ w/d = 0, and SE(c0)² = Σ w²SE²; a next term bias/d² contributes |Σ w/d²|·bias; Δt
    is what rounding to whole steps has moved the times by (0 where every d is a multiple of the smallest). The weights
    are those of least squares with variances ~ 1/d, which is how fluctuations scale: they do not depend on the data, so
    Student's t with n − 1 degrees of freedom bounds the tail of c0/SE(c0), whatever the variances are (Hájek 1962).
    Weights 1/SE² would have no such bound.

    *To order 1/d.* Variances over runs are compared by the chi-squared distribution, its degrees of freedom reduced by
    the runs' kurtosis: each component and time, and for each observable the average of all in units of what is
    predicted. Means are compared at each d also jointly, by Hotelling's test with the covariance of the runs. All
    these count among the N. Of several d, means are fitted by c1/d + c2/d², and c1 must vanish; variances and the joint
    test stand at each d. ``verdict.power`` states the smallest relative errors of the drift (as a whole), of m and of C
    that would have given FAIL. PASS also demands that an error of ``resolution`` in C would have been caught, and the
    absence of m.

    *Shift.* ``verdict.shifts``: the s for which theory(t − s) is closest at each d, its standard error from the runs,
    and what remains.

    *Power.* ``detectable``, for a component: an error of this size or more in theory, of either sign, at more than
    half of the times that count while the observable moves, would have given FAIL on these data. It is the median over
    those times of tolerance + |deviation|; for an observable, of its least certain component. An observable moves up to
    the first time from which all its components stay within 5 % of its scale of their last values; what has converged
    is known much more precisely, and would flatter. The scale is the largest range over time of any component, or,
    where nothing moves, the largest absolute value; then all times count.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> t = np.linspace(0, 5, 11)
    >>> theory = xr.Dataset({"R": ("t", 1 - np.exp(-t))}, coords={"t": t})
    >>> noise = 0.03 * np.sqrt(t) * rng.standard_normal((64, t.size))
    >>> simulation = xr.Dataset({"R": (("run", "t"), theory.R.values + noise)}, coords={"t": t, "d": 1000})
    >>> verdict = compare(theory, simulation)
    >>> verdict.status, verdict.n_comparisons
    ('PASS', 10)
    >>> round(float(verdict.summary.relative[0]), 3)  # an error of 3 % of R's range would have been seen
    0.032
    >>> compare(theory * 1.1, simulation).status
    'FAIL'
    """
    check_number("level", level, 0 < level < 1, "a probability between 0 and 1")
    check_order(theory, simulation)
    if numerical is None:
        numerical = max(NUMERICAL, GROWTH * float(theory.attrs.get("rtol", 0.0)))
    for name, number in (("bias", bias), ("numerical", numerical)):
        check_number(name, number, 0 <= number < np.inf, "a finite number, at least 0")
    check_number("resolution", resolution, 0 < resolution < np.inf, "a fraction of an observable's scale, above 0")

    theory, simulation = (with_time(dataset) for dataset in (theory, simulation))
    order = int(has_fluctuations(theory))
    notes = check_attributes(theory, simulation)
    simulation = by_size(simulation, notes)
    names = names_compared(of_limit(theory), simulation, variables, notes)
    if order:
        check_start(theory, simulation)
        names = predicted(theory, names, notes)
    sizes = input_dimensions(simulation)
    check_dimension(theory, sizes)
    offset = check_times(theory, simulation, sizes)
    parts = [flatten(name, theory, simulation, offset, numerical) for name in names]
    runs = parts[0].runs
    table, scale = measure_deviations(parts, sizes, bias, numerical, is_deterministic(simulation), order)
    table.attrs["clock"] = simulation.attrs.get("clock", theory.attrs.get("clock", "steps/d"))

    sampled = order and runs > 1
    variances = compare_variances(theory, simulation, names, sizes, bias) if sampled else None
    joint = joint_tests(table, simulation, sizes, notes) if sampled else ()
    count = int(table.counted.sum()) + len(joint) + (0 if variances is None else int(variances.counted.sum()))
    critical = 0.0 if is_deterministic(simulation) else quantile(level, count, runs)
    table["tolerance"] = critical * table.standard_error + table.allowance
    table["passed"] = abs(table.deviation) <= table.tolerance
    table["n"] = "comparison", np.full(table.sizes["comparison"], runs)
    if sizes.size > 1:
        alone = critical * table.standard_error_at_d + table.allowance_at_d + numerical * table.scale
        table["passed_at_d"] = abs(table.mean_at_d - table.theory_at_d) <= alone
        table["exponent_interval"] = table.exponent_error * (-stdtrit(runs - 1, 0.025) if runs > 1 else np.nan)
    summary = summarise(table, names, scale)
    if variances is not None:
        variances = judge_variances(variances, level / count)
    power = measure_power(table, variances)
    shifts = () if is_deterministic(simulation) or runs < 2 else fit_shifts(table, simulation, sizes, critical)
    status, reason = decide(
        table, summary, simulation, runs, level, resolution, variances, joint, power if order else {}
    )
    status, reason = explain_by_shift(status, reason, shifts, escape, variances)
    return Verdict(
        status, reason, table.drop_vars("scale"), summary, level, bias, resolution, numerical, count, critical,
        criterion=state_criterion(
            sizes, critical, state_reason(simulation, runs, level, count, bias), bias, table, order
        ),
        theory=describe_theory(theory),
        simulation=describe_simulation(simulation, sizes, runs), notes=tuple(notes),
        variances=variances, joint=joint, shifts=shifts, power=power,
        sources={"theory": dict(theory.attrs), "simulation": dict(simulation.attrs)},
    )  # fmt: skip
