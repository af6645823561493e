"""The search for conservation laws of a three-layer linear network, and its linear algebra against SymPy's."""

import time

from sympy import QQ
from sympy.polys.matrices import DomainMatrix
from timing import Row, interleaved

from effdyn.derive.conservation.laws import conservation_laws
from effdyn.derive.conservation.linear_algebra import null_space
from effdyn.derive.conservation.networks import linear_network_parametrisation
from effdyn.derive.conservation.polynomial_laws import equations
from effdyn.derive.conservation.polynomials import monomials

WIDTHS = (3, 4, 3, 2)
"""30 parameters, 465 quadratic monomials, 16 laws."""
LARGER = (5, 8, 8, 5)
"""144 parameters, 10440 quadratic monomials, 72 laws."""
TARGET = 2.0  # seconds
LAWS = {WIDTHS: 16, LARGER: 72}


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    parametrisation = linear_network_parametrisation(WIDTHS)
    candidates = list(monomials(len(parametrisation.theta), 2))
    rows = equations(parametrisation.gradients, candidates)
    jobs = {
        "search": lambda: _checked(WIDTHS),
        "ours": lambda: null_space(rows, len(candidates)),
        "SymPy": lambda: _sympy_null_space(rows, len(candidates)),
    }
    if len(null_space(rows, len(candidates))) != len(_sympy_null_space(rows, len(candidates))):
        raise AssertionError("the two null spaces differ")
    seconds = interleaved(jobs, 3 if quick else 20)
    found = [
        Row(
            f"laws of a linear network, widths {'-'.join(map(str, WIDTHS))}",
            seconds["search"],
            "s",
            seconds["SymPy"] / seconds["search"],
            "SymPy's exact null space alone",
            f"<= {TARGET:g} s",
            seconds["search"] <= TARGET,
        ),
        Row("its null space", seconds["ours"], "s", seconds["SymPy"] / seconds["ours"], "SymPy's exact null space"),
    ]
    if not quick:
        started = time.thread_time()
        _checked(LARGER)
        larger = time.thread_time() - started
        name = f"laws of a linear network, widths {'-'.join(map(str, LARGER))}"
        found.append(Row(name, larger, "s", larger / seconds["search"], f"widths {'-'.join(map(str, WIDTHS))}"))
    return found


def _checked(widths: tuple[int, ...]) -> None:
    laws = conservation_laws(linear_network_parametrisation(widths))
    if not laws.complete or laws.found != LAWS[widths]:
        raise AssertionError(f"{laws.found} laws of widths {widths}, not {LAWS[widths]}")


def _sympy_null_space(rows: list[dict[int, int]], columns: int) -> list[object]:
    sparse = {n: {column: QQ(entry) for column, entry in row.items()} for n, row in enumerate(rows)}
    return list(DomainMatrix(sparse, (len(rows), columns), QQ).nullspace().to_dod())
