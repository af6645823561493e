"""The text of an expression inside the open loops: sums, products, powers, calls. What belongs further out is asked for
(:meth:`Text._code`), and so are sums over an index."""

from abc import abstractmethod
from collections.abc import Sequence

import sympy

from effdyn.derive.user_function import UserFunction

from .elementary import NODE_FUNCTIONS
from .functions import LIBRARY
from .kinks import kink_text
from .places import ROW_COST, Places
from .sources import CALLABLE
from .sums import SymmetricSum

LONGEST_SUM = 100
"""From how many summands on a sum is written in several statements."""


class Text(Places):
    """Writes an expression where it stands."""

    @abstractmethod
    def _code(self, expr: sympy.Expr) -> str:
        """Return the text of the value of an expression, computed where its indices are bound."""

    @abstractmethod
    def _named(self, expr: sympy.Expr, depth: int) -> str:
        """Return the name of the value of an expression, computed once, inside the loop at ``depth``."""

    @abstractmethod
    def _accumulate(self, expr: sympy.Expr) -> str:
        """Return the text of the value of a sum, having added it up."""

    def _atom(self, expr: sympy.Expr) -> str:
        indices = [self._position(i) for i in expr.indices] if isinstance(expr, sympy.Indexed) else []
        if any(expr == block.index for block in self.stack):
            return f"({expr} + 1.0)"  # an index as a number: from 1, as in the equations
        return self.element(expr, indices)

    def _position(self, index: sympy.Expr) -> str:
        """Return the text of an index counted from 0, as the indices of loops are."""
        looped = index.is_Symbol or any(block.index in self._free(index) for block in self.stack)
        return str(index if looped else index - 1)

    def _text(self, expr: sympy.Expr) -> str:
        if isinstance(expr, sympy.Indexed):
            return self._atom(expr)
        if isinstance(expr, sympy.Add):
            return self._sum_text(self._grouped(expr))
        if isinstance(expr, sympy.Mul):
            return self._product_text(self._grouped(expr))
        if isinstance(expr, sympy.Pow):
            return self._power_text(expr)
        if isinstance(expr, (sympy.Sum, SymmetricSum)):
            block = self.stack[-1]
            if expr not in block.names:
                block.names[expr] = self._accumulate(expr)
            return block.names[expr]
        return self._call_text(expr)

    def _grouped(self, expr: sympy.Expr) -> list[sympy.Expr]:
        """Return the operands of a sum or product, those that belong to the same outer place put together as one
        operand."""
        indices = [block.index for block in self.stack if block.index is not None]
        groups: dict[tuple[bool, ...], list[sympy.Expr]] = {}
        for argument in expr.args:
            groups.setdefault(tuple(index in self._free(argument) for index in indices), []).append(argument)
        full = tuple(index in self._free(expr) for index in indices)
        partial = sorted((g for g in groups if g != full), key=lambda g: (sum(g), g[::-1]))
        for n, small in enumerate(
            partial
        ):  # a number joins an expression in i, that one an expression in i, k: fewer operations inside
            larger = next((g for g in partial[n + 1 :] if all(b or not a for a, b in zip(small, g, strict=True))), None)
            if larger and (
                any(small) or self._cost(expr.func(*groups[larger])) < ROW_COST
            ):  # a row is shared more often without constants
                groups[larger] = groups.pop(small) + groups[larger]
        operands: list[sympy.Expr] = []
        for key, members in groups.items():
            operands += members if key == full or len(members) == len(expr.args) else [expr.func(*members)]
        return operands

    def _sum_text(self, operands: Sequence[sympy.Expr]) -> str:
        if len(operands) > LONGEST_SUM:  # compilers recurse once a summand
            parts = [self._sum_text(operands[n : n + LONGEST_SUM]) for n in range(0, len(operands), LONGEST_SUM)]
            names = [self._name("t") for _ in parts]
            for name, part in zip(names, parts, strict=True):
                self.line(f"{name} = {part}")
            return f"({' + '.join(names)})"
        text = ""
        for operand in sorted(operands, key=lambda e: e.could_extract_minus_sign()):
            negative = bool(text) and operand.could_extract_minus_sign()
            code = self._code(-operand if negative else operand)
            text += f" {'-' if negative else '+'} {code}" if text else code
        return f"({text})"

    def _product_text(self, operands: Sequence[sympy.Expr]) -> str:
        number = sympy.Mul(*(o for o in operands if o.is_number))
        above = [] if number == 1 else [self._code(number)]
        below = []
        for operand in operands:
            if operand.is_number:
                continue
            inside = self._complete(operand, len(self.stack) - 1) and self._uses.get(operand, 0) < 2
            if (
                isinstance(operand, sympy.Pow)
                and operand.exp.is_number
                and operand.exp.could_extract_minus_sign()
                and inside
            ):
                below.append(self._code(operand.base**-operand.exp))
            else:
                above.append(self._code(operand))
        text = "*".join(above) or "1.0"
        return f"({text}/{_divisor(below)})" if below else f"({text})"

    def _power_text(self, expr: sympy.Expr) -> str:
        base, exponent = expr.base, expr.exp
        if exponent.could_extract_minus_sign():
            return f"(1.0/{self._code(base**-exponent)})"
        whole, half = divmod(exponent, 1)
        if half not in (0, sympy.Rational(1, 2)) or not exponent.is_number or whole > 64:
            return f"({self._code(base)}**{self._code(exponent)})"
        code = (
            self._code(base)
            if isinstance(base, (sympy.Symbol, sympy.Indexed)) or self._streams(base)
            else self._named(base, self._depth(base))
        )
        factors = [code] * int(whole) + ([f"math.sqrt({code})"] if half else [])
        return f"({'*'.join(factors)})" if whole else factors[0]

    def _call_text(self, expr: sympy.Expr) -> str:
        name = expr.func.__name__
        if isinstance(expr, sympy.KroneckerDelta):
            return f"(1.0 if {' == '.join(map(str, expr.args))} else 0.0)"
        kinked = kink_text(expr, self._plain, self._use)
        if kinked is not None:
            return kinked
        pasted = name in CALLABLE or isinstance(expr, UserFunction)
        if not pasted and name not in LIBRARY:
            raise ValueError(
                f"{expr} cannot be compiled: kernels know sums, products, powers and "
                f"{', '.join(sorted({*CALLABLE, *LIBRARY}))}"
            )
        if expr in self._gathered:
            value = self._name("f")
            self.line(f"{value} = work[gather + at]")
            self.line("at += 1")
            self.stack[-1].names[expr] = value  # read once, however often it is used
            return value
        if name in NODE_FUNCTIONS and any(block.size in self.streamed for block in self.stack):
            function = self._use(NODE_FUNCTIONS[name])
        else:
            function = self._use(name) if pasted else LIBRARY[name]
        return f"{function}({', '.join(map(self._code, expr.args))})"

    def _plain(self, expr: sympy.Expr) -> str:
        """Return a number or the name of a value, which is computed before."""
        text = self._code(expr)
        if text.isidentifier() or expr.is_number:
            return text
        name = self._name("t")
        self.line(f"{name} = {text}")
        return name


def _divisor(factors: Sequence[str]) -> str:
    """Return a product by which something is divided: in brackets, unless it is one factor that has its own."""
    alone = factors[0] if len(factors) == 1 else ""
    return alone if alone.endswith(")") and _closing(alone) == len(alone) - 1 else f"({'*'.join(factors)})"


def _closing(text: str) -> int:
    """Return where the first bracket of a text is closed, if only a function's name is before it; else -1."""
    depth = 0
    for n, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ")":
            return n
        if depth == 0 and not (character.isalnum() or character in "._"):
            return -1
    return -1
