"""Terms of indexed equations as NumPy code: sums over indices are ``np.einsum``, moments are calls by name."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import sympy
from sympy.printing.numpy import SciPyPrinter

from ..moments import Moment

if TYPE_CHECKING:
    from ..dynamics import Dynamics


class NumPyPrinter(SciPyPrinter):
    """SymPy's printer for NumPy, with the names as one writes them."""

    def __init__(self) -> None:
        super().__init__({"fully_qualified_modules": True})

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return python_name(expr.name)

    def _print_Pi(self, expr: sympy.Expr) -> str:
        return "np.pi"

    def ratio(self, expr: sympy.Expr) -> str:
        """Return a product of scalars as Python code, over one denominator."""
        above, below = sympy.fraction(expr)
        divisor = self.code(below) if not below.is_Mul else f"({self.code(below)})"
        return self.code(above) if below == 1 else f"{self.code(above)}/{divisor}"

    def code(self, expr: sympy.Expr) -> str:
        """Return the expression as Python code."""
        return str(self.doprint(expr)).replace("numpy.", "np.")


def python_name(name: str) -> str:
    r"""Return C'_23 as C1_23 (one tilt), hat C_11 as V_11, and other names as they are."""
    if name.startswith("hat C"):
        return python_name(name[4:]).replace("C", "V", 1)
    primes = name.count("'")
    return name.replace("'" * primes, str(primes)) if primes else name


class Einsum:
    """Writes terms of indexed equations as ``np.einsum`` calls, and collects the moments they need."""

    def __init__(self, dyn: "Dynamics") -> None:
        self.dyn = dyn
        quantities = (*dyn.parameters, *(e.quantity for e in dyn.equations))
        self.sizes = {index: size for q in quantities for index, size in zip(q.indices, q.shape, strict=True)}
        self.names = {(m.signature, m.shape): m.name for m in dyn.moments}
        self.printer = NumPyPrinter()
        bases = [str(family.base) for family in dyn.families]
        letters = ["s" if base.endswith("_star") else base[0] for base in bases]
        self.letters = dict(zip(bases, letters if len(set(letters)) == len(letters) else "abcdefgh", strict=False))
        self.moments: dict[str, str] = {}

    def term(self, term: sympy.Expr, free: Iterable[sympy.Symbol]) -> tuple[bool, str]:
        """Return whether a term is negative, and the code of the rest, an array with the axes ``free``."""
        free = tuple(free)
        number, rest = term.as_coeff_Mul()
        scalars, operands = [abs(number)] if abs(number) != 1 else [], []
        for factor in self._flat(rest, set(free)):
            if isinstance(factor, Moment) or any(
                isinstance(e, sympy.Indexed) for e in sympy.preorder_traversal(factor)
            ):
                operands.append(self._operand(factor))
            elif factor != 1:
                scalars.append(factor)
        present = "".join(label for label, _ in operands)
        operands += [(str(i), f"np.ones({self.sizes[i]})") for i in free if str(i) not in present]
        labels = "".join(map(str, free))
        if operands and [label for label, _ in operands] == [labels]:
            code = operands[0][1]
        elif operands:
            axes, arrays = ",".join(label for label, _ in operands), ", ".join(array for _, array in operands)
            code = f'np.einsum("{axes}->{labels}", {arrays})'
        else:
            code = ""
        scalar = self.printer.ratio(sympy.Mul(*scalars)) if scalars else ""
        return bool(number < 0), " * ".join(part for part in (scalar, code) if part) or "1.0"

    def _flat(self, expr: sympy.Expr, taken: set[sympy.Symbol]) -> list[sympy.Expr]:
        """Return the factors of a product, those in sums included, summation indices renamed apart."""
        factors = []
        for f in sympy.Mul.make_args(expr):
            if not isinstance(f, sympy.Sum):
                factors.append(f)
                continue
            body = f.function
            for index, low, high in f.limits:
                letter = next(c for c in (str(index), *"pqrsuvwxyzabcdefgh") if c not in {str(t) for t in taken})
                fresh = sympy.Symbol(letter, integer=True, positive=True)
                self.sizes[fresh] = high
                taken.add(fresh)
                body = body.xreplace({index: fresh})
                assert low == 1
            factors += self._flat(body, taken)
        return factors

    def _operand(self, factor: sympy.Expr) -> tuple[str, str]:
        if isinstance(factor, Moment):
            return self._moment(factor)
        base, exponent = factor.as_base_exp()
        if isinstance(base, sympy.Indexed) and not exponent.has(sympy.Indexed):
            label, code = "".join(map(str, base.indices)), str(base.base)
            if len(set(label)) < len(label):
                label, code = label[0], f"np.diagonal({code})"
            if exponent == sympy.S.Half:
                return label, f"np.sqrt({code})"
            power = self.printer.code(exponent)
            return label, code if exponent == 1 else f"{code} ** {power if power.isdigit() else f'({power})'}"
        return self._broadcast(factor)

    def _moment(self, moment: Moment) -> tuple[str, str]:
        name = self.names[moment.signature, moment.shape]
        families = [str(h.base) for h in moment.fields]
        variable = f"{name}_{''.join(self.letters[f] for f in families)}"
        self.moments[variable] = f"{name}(at(C, {', '.join(families)}))"
        return "".join(str(h.indices[0]) for h in moment.fields), variable

    def _broadcast(self, factor: sympy.Expr) -> tuple[str, str]:
        """Return any function of several arrays, with one axis for each index that occurs."""
        entries = sorted((e for e in factor.atoms(sympy.Indexed)), key=sympy.default_sort_key)
        axes = sorted({str(i) for e in entries for i in e.indices})
        swap = {}
        for e in entries:
            label, code = self._operand(e)
            inserted = ", ".join(":" if axis in label else "None" for axis in axes)
            ordered = "".join(sorted(label))
            array = code if ordered == label else f'np.einsum("{label}->{ordered}", {code})'
            swap[e] = sympy.Symbol(f"{array}[{inserted}]")
        return "".join(axes), self.printer.code(factor.xreplace(swap))
