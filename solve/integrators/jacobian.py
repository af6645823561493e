"""The Jacobian of the equations of motion as a kernel, from symbolic derivatives, for implicit integrators.

Equations between scalars are written out, an expression for each entry. Those of matrices of order parameters stay
indexed: the equations of a perturbation (``effdyn.derive.tangent``) are evaluated at unit perturbations, one a column.
"""

import textwrap
from dataclasses import replace
from functools import lru_cache

import sympy

from effdyn.derive import Dynamics, Quantity
from effdyn.derive.tangent import NotDifferentiable, tangent

from ..kernels.cache import load_generated
from ..kernels.kernel import OPTIONS, SIGNATURE, Kernel, check_dynamics, compile_kernel, generate
from ..kernels.memory import packed_size


def jacobian_kernel(dynamics: Dynamics) -> Kernel | None:
    """Return the compiled derivatives of each drift by each state, (n, n) row by row; None where there are none.

    Of a symmetric matrix the entries on and above the diagonal count, in the order of ``y``.

    Parameters
    ----------
    dynamics : Dynamics
        Differential equations.

    Returns
    -------
    Kernel or None
        Called like that of the equations, with the same ``y`` and ``par``. None if they hold numerical expectations or
        functions without a derivative: :func:`why_none` says which.

    Examples
    --------
    >>> from effdyn import derive, solve
    >>> from effdyn.derive.dynamics import Equation
    >>> x, y = sympy.symbols("x y", real=True)
    >>> drift = [Equation(derive.Quantity("x"), y), Equation(derive.Quantity("y"), (1 - x**2) * y - x)]
    >>> oscillator = derive.Dynamics("van der Pol", "ode", "t", tuple(drift))
    >>> "-2*x*y - 1" in jacobian_kernel(oscillator).source
    True
    """
    check_dynamics(dynamics)
    return None if why_none(dynamics) else _compiled(dynamics)


def jacobian_for(method: str, dynamics: Dynamics) -> tuple[Kernel | None, str]:
    """Return the Jacobian for an implicit method, and where it is from: ``"symbolic"``, or differences and why.

    ``"auto"`` does without that of indexed equations: it is compiled for seconds, and seldom needed there. Measured on
    erf committees, K = M = 2 and 4, differences lead to the same steps and errors, up to a third cheaper at rtol 1e-4.
    """
    reason = why_none(dynamics)
    if method == "auto" and dynamics.sizes and not reason:
        reason = "the symbolic one of matrices takes seconds to compile; method='Radau5' uses it"
    return (None, f"finite differences: {reason}") if reason else (jacobian_kernel(dynamics), "symbolic")


@lru_cache(maxsize=256)
def why_none(dynamics: Dynamics) -> str:
    """Return why equations have no symbolic Jacobian; nothing if they have one."""
    try:
        tangent(dynamics)
    except NotDifferentiable as reason:
        return str(reason)
    return ""


@lru_cache(maxsize=256)
def _compiled(dynamics: Dynamics) -> Kernel:
    linear = tangent(dynamics)
    if not dynamics.sizes:
        return compile_kernel(dynamics, entries(linear), "jacobian", f"{dynamics.title}: derivatives of the drift.")
    return _by_columns(dynamics, linear)


def entries(linear: Dynamics) -> list[tuple[Quantity, sympy.Expr]]:
    """Return each drift's derivative by each state, by name: the equations of a perturbation at unit perturbations."""
    states = [sympy.sympify(q.symbol) for q in linear.states]
    units = [{s: sympy.Integer(s == unit) for s in states} for unit in states]
    return [
        (Quantity(f"slope_{i}_{j}"), e.expr.xreplace(unit))
        for i, e in enumerate(linear.drift)
        for j, unit in enumerate(units)
    ]


# -- columns -----------------------------------------------------------------------------------------------------------

_DEFINITION = f'@cfunc("{SIGNATURE}", {OPTIONS})\ndef kernel(t, y, out, par, work):\n'
_IMPORTS = "from numba import cfunc, njit, types\nfrom numba.extending import intrinsic"
_COLUMNS = '''@intrinsic
def behind(context, pointer, count):
    """The address of the element that many places on."""

    def code(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    numbers = types.CPointer(types.float64)
    return numbers(numbers, types.int64), code


@cfunc("{signature}", {options})
def kernel(t, y_full, out_full, par_full, work_full):
{sizes}
    n_full = {count}
    # par of the equations of a perturbation: sizes, states in full, parameters; behind it y, out and work
    par = work_full
    y = behind(par, {states} + {given})
    out, work = behind(y, n_full), behind(y, 2 * n_full)
    for p in range({head}):
        par[p] = par_full[p]
    p, at = 0, {head}
{unpack}
    for p in range({head}, {given}):
        par[at] = par_full[p]
        at += 1
    for j_full in range(n_full):
        y[j_full] = 0.0
    for j_full in range(n_full):  # each column: the derivative along a unit perturbation
        y[j_full] = 1.0
{body}
        y[j_full] = 0.0
        for i_full in range(n_full):
            out_full[i_full * n_full + j_full] = out[i_full]
'''
"""Names end in _full, which no name in the body does that the equations bring with them."""
_TRIANGLE = """\
    for i_full in range({rows}):
        for j_full in range(i_full, {rows}):
            par[at + i_full * {rows} + j_full] = par[at + j_full * {rows} + i_full] = y_full[p]
            p += 1
    at += {rows} * {rows}"""
_ARRAY = """\
    for _ in range({length}):
        par[at] = y_full[p]
        p += 1
        at += 1"""


def _by_columns(dynamics: Dynamics, linear: Dynamics) -> Kernel:
    """Return the kernel that evaluates the equations of a perturbation at each unit perturbation."""
    if linear.sizes != dynamics.sizes:
        raise AssertionError(f"{linear.sizes} are not the sizes {dynamics.sizes} that par begins with")
    title = f"{dynamics.title}: derivatives of the drift."
    source, shapes = generate(linear, [(e.quantity, e.expr) for e in linear.drift], title)
    before, _, body = source.partition(_DEFINITION)
    names = {size: sympy.Symbol(f"size{n}_full", integer=True) for n, size in enumerate(dynamics.sizes)}
    states, parameters = (
        [replace(q, shape=tuple(names[s] for s in q.shape)) for q in quantities]
        for quantities in (dynamics.states, dynamics.parameters)
    )
    columns = _COLUMNS.format(
        signature=SIGNATURE,
        options=OPTIONS,
        sizes="\n".join(f"    {name} = int(par_full[{n}])" for n, name in enumerate(names.values())),
        count=" + ".join(map(packed_size, states)),
        head=len(names),
        given=sympy.Add(len(names), *map(_entries, parameters)),
        states=sympy.Add(*map(_entries, states)),
        unpack="\n".join(map(_unpacking, states)),
        body=textwrap.indent(body.rstrip(), "    "),
    )
    text = before.replace("from numba import cfunc, njit", _IMPORTS) + columns
    module = load_generated("jacobian", text)
    twice = [q.shape for q in dynamics.states] * 2  # y and out, generously
    arrays = [(sympy.Integer(len(names)),), *(q.shape for q in (*dynamics.states, *dynamics.parameters)), *twice]
    return Kernel(text, module.kernel.address, (*arrays, *shapes), dynamics.states, None, module)


def _entries(q: Quantity) -> sympy.Expr:
    """Return the number of entries of an array in full."""
    return sympy.Mul(*q.shape)


def _unpacking(q: Quantity) -> str:
    """Return the statements that copy a state from ``y_full`` in full."""
    return _TRIANGLE.format(rows=q.shape[0]) if q.symmetric else _ARRAY.format(length=_entries(q))
