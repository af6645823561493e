"""Terms of indexed equations as NumPy code: sums over indices are ``np.einsum``, moments are calls by name."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import sympy
from sympy.printing.numpy import SciPyPrinter

from ..moments import Joint, Moment
from .calls import defined, network_names
from .numpy_joint import Array, JointWriter

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

    def _print_Max(self, expr: sympy.Expr) -> str:
        return self._nested("np.maximum", expr)

    def _print_Min(self, expr: sympy.Expr) -> str:
        return self._nested("np.minimum", expr)

    def _nested(self, function: str, expr: sympy.Expr) -> str:
        first, *others = map(self._print, expr.args)
        for other in others:
            first = f"{function}({first}, {other})"
        return first

    def _special(self, expr: sympy.Expr) -> str:
        return f"{type(expr).__name__}({', '.join(map(self._print, expr.args))})"

    _print_sign4 = _print_sign2_given1 = _print_sign2_given2 = _print_sign1_given1 = _special
    _print_edge = _print_Phi2 = _print_Phi3 = _special

    def ratio(self, expr: sympy.Expr) -> str:
        """Return a product of scalars as Python code, over one denominator."""
        above, below = sympy.fraction(expr)
        if below == 1:
            return self.code(above)
        dividend = f"({self.code(above)})" if above.is_Add else self.code(above)
        return f"{dividend}/({self.code(below)})" if below.is_Mul or below.is_Add else f"{dividend}/{self.code(below)}"

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
        single = {"h_phi": "p", "y_star": "y", "r": "r"}
        letters = [single.get(base, "s" if base.endswith("_star") else base[0]) for base in bases]
        self.letters = dict(zip(bases, letters if len(set(letters)) == len(letters) else "abcdefgh", strict=False))
        self.moments: dict[str, str] = {}
        self.joints: dict[str, str] = {}
        self.joint = JointWriter(self.printer, tuple(bases), tuple(map(str, defined(dyn))))
        self.shorten = network_names(dyn)

    def term(self, term: sympy.Expr, free: Iterable[sympy.Symbol]) -> tuple[bool, str]:
        """Return whether a term is negative, and the code of the rest, an array with the axes ``free``."""
        free = tuple(free)
        number, rest = term.as_coeff_Mul()
        scalars, operands = [abs(number)] if abs(number) != 1 else [], []
        for factor in self._flat(rest, set(free)):
            if isinstance(factor, (Moment, Joint)) or any(
                isinstance(e, (sympy.Indexed, sympy.KroneckerDelta)) for e in sympy.preorder_traversal(factor)
            ):
                operands.append(self._operand(factor))
            elif factor != 1:
                scalars.append(factor)
        present = "".join(label for label, _ in operands)
        operands += [(str(i), f"np.ones({self.sizes[i]})") for i in free if str(i) not in present]
        labels = "".join(map(str, free))
        if operands and [label for label, _ in operands] == [labels]:
            bare = len(scalars) > 0 and any(f.is_Add for f in self._flat(rest, set(free)))
            code = f"({operands[0][1]})" if bare else operands[0][1]
        elif operands:
            axes, arrays = ",".join(label for label, _ in operands), ", ".join(array for _, array in operands)
            code = f'np.einsum("{axes}->{labels}", {arrays})'
        else:
            code = ""
        factor = sympy.Mul(*scalars)
        scalar = self.printer.ratio(factor) if scalars else ""
        scalar = f"({scalar})" if factor.is_Add and code else scalar
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
                names = (str(index), *"pqrsuvwxyzabcdefgh")
                letter = next(c for c in names if len(c) == 1 and c not in {str(t) for t in taken})
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
        if isinstance(factor, Joint):
            return self._joint(factor)
        if isinstance(factor, sympy.KroneckerDelta):
            return "".join(map(str, factor.args)), f"np.eye({self.sizes[factor.args[0]]})"
        if isinstance(factor, sympy.Sum):
            return self._inner_sum(factor)
        base, exponent = factor.as_base_exp()
        if isinstance(base, sympy.Indexed) and not exponent.has(sympy.Indexed):
            label, code = "".join(map(str, base.indices)), str(base.base)
            if len(set(label)) < len(label):
                own = "".join(dict.fromkeys(label))
                code = f"np.diagonal({code})" if len(label) == 2 else f'np.einsum("{label}->{own}", {code})'
                label = own
            if exponent == sympy.S.Half:
                return label, f"np.sqrt({code})"
            power = self.printer.code(exponent)
            return label, code if exponent == 1 else f"{code} ** {power if power.isdigit() else f'({power})'}"
        return self._broadcast(factor)

    def _moment(self, moment: Moment) -> tuple[str, str]:
        name = self.names[moment.signature, moment.shape]
        families = [(str(h.base), h.indices[0]) for h in moment.fields]
        fixed = [f"{int(i)}" if i.is_number and self.is_counted(f) else "" for f, i in families]
        variable = f"{name}_{''.join(self.letters[f] + n for (f, _), n in zip(families, fixed, strict=True))}"
        given = ", ".join(f"{f}[{int(i) - 1} : {int(i)}]" if i.is_number else f for f, i in families)
        call = f"{name}(*at(C, mean, {given}))" if self.dyn.mean else f"{name}(at(C, {given}))"
        if any(i.is_number for _, i in families):
            call += f"[{', '.join('0' if i.is_number else ':' for _, i in families)}]"
        self.moments[variable] = call
        return "".join(str(i) for _, i in families if not i.is_number), variable

    def is_counted(self, family: str) -> bool:
        """Return whether a family has more than one field."""
        return not any(str(f.base) == family and f.size == 1 for f in self.dyn.families)

    def _joint(self, joint: Joint) -> tuple[str, str]:
        coefficient, average = self.shorten(joint).as_independent(Joint, as_Add=False)
        value = self.joint.write(average.args[0])
        code = f"np.tensordot(weights, {value.code}, axes=1)" if value.nodes else value.code
        variable = self.joints.setdefault(code, f"E_{len(self.joints) + 1}")
        scale = "" if coefficient == 1 else f"{Array(self.printer.code(coefficient)).bracketed()} * "
        return "".join(map(str, value.axes)), f"({scale}{variable})" if scale else variable

    def _broadcast(self, factor: sympy.Expr) -> tuple[str, str]:
        """Return any function of several arrays, with one axis for each index that occurs."""
        entries = sorted(_outermost(factor), key=sympy.default_sort_key)
        operands = {e: self._operand(e) for e in entries}
        axes = sorted({axis for label, _ in operands.values() for axis in label})
        swap = {}
        for e, (label, code) in operands.items():
            inserted = ", ".join(":" if axis in label else "None" for axis in axes)
            ordered = "".join(sorted(label))
            array = code if ordered == label else f'np.einsum("{label}->{ordered}", {code})'
            swap[e] = sympy.Symbol(f"{array}[{inserted}]" if label else array)
        return "".join(axes), self.printer.code(factor.xreplace(swap))

    def _inner_sum(self, expr: sympy.Sum) -> tuple[str, str]:
        """Return a sum that stands inside another function, as an array with one axis for each of its free indices."""
        indices = {i for e in expr.atoms(sympy.Indexed) for i in e.indices} & expr.free_symbols
        axes = sorted(indices, key=str)
        negative, code = self.term(expr, axes)
        return "".join(map(str, axes)), f"(-{code})" if negative else f"({code})"


def _outermost(expr: sympy.Expr) -> set[sympy.Expr]:
    """Return the sums, array elements and deltas of an expression that stand in no sum inside it."""
    if isinstance(expr, (sympy.Sum, sympy.Indexed, sympy.KroneckerDelta)):
        return {expr}
    return {e for argument in expr.args for e in _outermost(argument)}
