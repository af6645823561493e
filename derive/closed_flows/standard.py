"""Plain real symbols for what equations are written in, and back: ``c[alpha]`` becomes one symbol, entry by entry."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sympy

from ..errors import Described, ModelError
from .flow import Unsuitable


@dataclass(frozen=True, slots=True)
class Standard:
    """Equations in plain symbols.

    Attributes
    ----------
    rates : tuple of (Symbol, Expr)
        States and rates in plain symbols.
    time : Symbol
    starts : tuple of (Symbol, Expr)
        For each state the symbol of its initial value, and how that is written.
    originals : tuple of (Symbol, Expr)
        What each plain symbol stands for: states and parameters, not initial values.
    """

    rates: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    time: sympy.Symbol
    starts: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    originals: tuple[tuple[sympy.Symbol, sympy.Expr], ...]

    def restored(self, expr: sympy.Basic) -> sympy.Basic:
        """Return ``expr`` as the equations were written."""
        return expr.xreplace({**dict(self.originals), **dict(self.starts)})


def standardise(
    equations: Mapping[sympy.Expr, sympy.Expr], t: sympy.Symbol, initial: Mapping[sympy.Expr, sympy.Expr]
) -> Standard:
    """Return the equations in plain real symbols.

    Raises
    ------
    ModelError
        For what is not an equation, or an initial value of something that is not a state.
    Unsuitable
        If an entry of an array is driven by other entries.
    """
    _check(equations, t, initial)
    atoms: set[sympy.Expr] = set()
    for state, rate in equations.items():
        atoms |= {state} | _atoms(rate, equations)
    plain = {atom: _plain(atom) for atom in sorted(atoms - {t}, key=str)}
    if len({symbol.name for symbol in plain.values()} | {str(t)}) <= len(plain):
        raise Unsuitable(f"two symbols have the same name, among {', '.join(map(str, plain))} and {t}")
    time = sympy.Symbol(str(t), nonnegative=True)
    table = {**plain, t: time}
    rates = tuple((plain[state], sympy.sympify(rate).xreplace(table)) for state, rate in equations.items())
    starts = tuple(
        (sympy.Symbol(f"{s}(0)", **_assumptions(s)), sympy.sympify(initial.get(s, start_of(s)))) for s in equations
    )
    originals = tuple((dummy, atom) for atom, dummy in table.items())
    return Standard(rates, time, starts, originals)


def start_of(state: sympy.Expr) -> sympy.Expr:
    """Return the symbol of a state's initial value: ``s_0``, ``s_0[alpha]``.

    Examples
    --------
    >>> start_of(sympy.Symbol("s")), start_of(sympy.IndexedBase("s")[sympy.Symbol("alpha")])
    (s_0, s_0[alpha])
    """
    if isinstance(state, sympy.Indexed):
        return sympy.IndexedBase(f"{state.base}_0", **_assumptions(state))[state.indices]
    return sympy.Symbol(f"{state.name}_0", **_assumptions(state))


def _check(
    equations: Mapping[sympy.Expr, sympy.Expr], t: sympy.Symbol, initial: Mapping[sympy.Expr, sympy.Expr]
) -> None:
    accepted = "a mapping of states (symbols, or entries of arrays such as s[alpha]) to their time derivatives"
    if not isinstance(equations, Mapping) or not equations:
        raise ModelError("equations", equations, accepted)
    if wrong := [s for s in equations if not isinstance(s, (sympy.Symbol, sympy.Indexed)) or s == t]:
        raise ModelError("equations", Described(", ".join(map(str, wrong))), accepted)
    if not isinstance(t, sympy.Symbol):
        raise ModelError("t", t, "the symbol of time")
    if unknown := [s for s in initial if s not in equations]:
        raise ModelError("initial", unknown[0], f"initial values of {', '.join(map(str, equations))}")


def _atoms(rate: sympy.Expr, equations: Iterable[sympy.Expr]) -> set[sympy.Expr]:
    rate, states = sympy.sympify(rate), list(equations)
    if sums := rate.atoms(sympy.Sum, sympy.Product, sympy.Integral):
        raise Unsuitable(f"entries are coupled, or parameters combined, by {min(map(str, sums))}")
    entries = rate.atoms(sympy.Indexed)
    bases = {s.base for s in states if isinstance(s, sympy.Indexed)}
    if others := sorted((e for e in entries if e.base in bases and e not in states), key=str):
        raise Unsuitable(f"an entry is driven by another one, {others[0]}")
    bare = rate.xreplace({e: sympy.Dummy() for e in entries}).free_symbols & rate.free_symbols
    indices = {i for e in (*entries, *states) if isinstance(e, sympy.Indexed) for i in e.indices}
    if used := sorted(map(str, bare & indices)):
        raise Unsuitable(f"the index {used[0]} occurs outside of arrays")
    return set(entries) | bare


def _plain(atom: sympy.Expr) -> sympy.Symbol:
    return sympy.Symbol(str(atom), **_assumptions(atom))


def _assumptions(atom: sympy.Expr) -> dict[str, bool]:
    """Of a real quantity; what is not known to be complex is taken as real, as states and parameters are."""
    found = {"real": True}
    for name in ("positive", "nonnegative", "negative", "integer"):
        if getattr(atom, f"is_{name}"):
            return found | {name: True} | ({"integer": True} if atom.is_integer else {})
    return found
