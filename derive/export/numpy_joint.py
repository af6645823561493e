"""Expectations over all fields at once as NumPy code: sums over nodes, each of which is one draw of all fields.

Arrays have the nodes along their first axis, then one axis for each index that occurs, in the order of their names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sympy

from ..activation import X
from ..increments import NOISE
from ..moments import Univariate, Value
from ..numerical.quadrature import LEADING
from ..numerical.stable import stable


@dataclass(frozen=True, slots=True)
class Array:
    """Code of an array: the indices of its axes in order, and whether the nodes are its first axis."""

    code: str
    axes: tuple[sympy.Symbol, ...] = ()
    nodes: bool = False

    def aligned(self, axes: Sequence[sympy.Symbol]) -> str:
        """Return the code with an axis of length 1 for each index that does not occur."""
        if self.axes == tuple(axes) or not (self.axes or self.nodes):
            return self.code
        places = [":" if axis in self.axes else "None" for axis in axes]
        return f"{self.bracketed()}[{', '.join([':'] * self.nodes + places)}]"

    def bracketed(self) -> str:
        """Return the code in brackets unless it is a name, a call or an entry."""
        depth = 0
        for c in self.code:
            depth += (c in "([") - (c in ")]")
            if depth == 0 and c in "+-*/ ":
                return f"({self.code})"
        return self.code


class JointWriter:
    """Writes the integrands of expectations over all fields.

    Parameters
    ----------
    printer : NumPyPrinter
        For functions and numbers.
    fields : tuple of str
        Names of the families of fields.
    random : tuple of str
        Names of further random quantities, defined in the fields: the output and the target.
    """

    def __init__(self, printer: object, fields: tuple[str, ...], random: tuple[str, ...] = ()) -> None:
        self.printer, self.fields, self.random = printer, fields, (str(NOISE), *random)
        self.functions: dict[str, str] = {}

    def write(self, expr: sympy.Expr) -> Array:
        """Return an expression in fields as an array."""
        if isinstance(expr, sympy.Indexed):
            return self._entry(expr)
        if isinstance(expr, sympy.Symbol) or expr.is_number:
            return Array(self._code(expr), nodes=str(expr) in self.random)
        if isinstance(expr, Value):
            return self._value(expr)
        if isinstance(expr, sympy.Sum):
            return self._sum(expr)
        leaves = {e: self.write(e) for e in self._leaves(expr)}
        axes = _union(leaves.values())
        if expr.has(sympy.Piecewise) or all(a.axes == axes or not (a.axes or a.nodes) for a in leaves.values()):
            return self._printed(expr, leaves, axes)
        return self._printed(expr, {a: self.write(a) for a in expr.args if not a.is_number}, axes)

    def _leaves(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the largest parts of an expression that are arrays of their own."""
        if isinstance(expr, (sympy.Indexed, sympy.Symbol, Value, sympy.Sum)):
            return [expr]
        return [leaf for argument in expr.args for leaf in self._leaves(argument)]

    def _printed(self, expr: sympy.Expr, parts: Mapping[sympy.Expr, Array], axes: tuple[sympy.Symbol, ...]) -> Array:
        """Return an expression with some of its parts as arrays."""
        symbols = {e: sympy.Symbol(Array(a.aligned(axes)).bracketed(), real=True) for e, a in parts.items()}
        return Array(self._code(expr.xreplace(symbols)), axes, any(a.nodes for a in parts.values()))

    def _code(self, expr: sympy.Expr) -> str:
        return str(self.printer.code(expr))  # type: ignore[attr-defined]  # NumPyPrinter, which imports this file

    def _entry(self, entry: sympy.Indexed) -> Array:
        """Return h[i], h_star[1], a[j] or Q[i, k], axes in order."""
        if entry.base == LEADING:
            return Array(str(LEADING), nodes=True)
        base, field = str(entry.base), str(entry.base) in self.fields
        fixed = [str(int(i) - 1) if i.is_number else ":" for i in entry.indices]
        code = base if all(f == ":" for f in fixed) else f"{base}[{', '.join([':'] * field + fixed)}]"
        axes = tuple(i for i in entry.indices if not i.is_number)
        ordered = tuple(sorted(axes, key=str))
        if axes != ordered:
            code = f'np.einsum("...{_letters(axes)}->...{_letters(ordered)}", {code})'
        return Array(code, ordered, field)

    def _value(self, value: Value) -> Array:
        function, field = value.args[0], self._entry(value.args[1])
        return Array(f"{self._defined(function)}({field.code})", field.axes, field.nodes)

    def _defined(self, function: Univariate) -> str:
        """Return the name of a function of one field, and keep its definition."""
        symbol, order, _ = function.args
        name = f"{symbol}{'_prime' * int(order)}"
        code = self._code(stable(function.function(X)))
        lines = [f"def {name}(x):", f'    """Return {function}(x), {function.function(X)}."""', f"    return {code}"]
        if not function.function(X).has(X):
            lines[-1] += " + 0 * x"  # an array all the same
        self.functions[name] = "\n".join(lines)
        return name

    def _sum(self, total: sympy.Sum) -> Array:
        body, limits = total.function, total.limits
        for index, _, _ in limits:  # a name of its own, as it may be a free index outside
            body = body.xreplace({index: sympy.Symbol(f"{index}_", integer=True, positive=True)})
        inner = self.write(body)
        summed = {f"{index}_" for index, _, _ in limits}
        places = [n + inner.nodes for n, axis in enumerate(inner.axes) if str(axis) in summed]
        axes = tuple(axis for axis in inner.axes if str(axis) not in summed)
        axis = str(places[0]) if len(places) == 1 else str(tuple(places))
        return Array(f"np.sum({inner.code}, axis={axis})", axes, inner.nodes)


def _union(arrays: Iterable[Array]) -> tuple[sympy.Symbol, ...]:
    return tuple(sorted({axis for a in arrays for axis in a.axes}, key=str))


def _letters(axes: Sequence[sympy.Symbol]) -> str:
    return "".join(str(axis)[0] for axis in axes)
