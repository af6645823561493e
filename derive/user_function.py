"""A user's numerical function as a SymPy one: real, differentiable as declared, known everywhere by its source text.

Each chain of source texts (a function, its derivative, …) is one class, made once: functions that say the same are
equal, here and in another process, and generated code is the same byte for byte. Knows nothing of networks.
"""

import copyreg
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import sympy
from sympy.core.function import FunctionClass

from .errors import Described, ModelError, NotYet
from .user_derivative import check_chain, check_source, has_kinks
from .user_source import renamed, source_of, sources_in, title, values_of


class UserFunctionClass(FunctionClass):
    """The type of such functions, which are pickled as source text."""


class UserFunction(sympy.Function, metaclass=UserFunctionClass):
    """A function of one real number that a user wrote in Python; :func:`user_function` makes one.

    Attributes
    ----------
    sources : tuple of str
        Its canonical source text and those of its derivatives.
    missing : int
        How many derivatives beyond the last declared one this is: 0 for what has source text.
    title : str
        The name that the user gave it. Its own, which stands in generated code, ends in a digest.
    """

    nargs = 1
    is_real = True
    sources: tuple[str, ...] = ()
    missing = 0
    title = ""

    @classmethod
    def source(cls) -> str:
        """Return its source text under its own name, for generated code.

        Raises
        ------
        NotYet
            If this is a derivative that was not declared.
        """
        if cls.missing:
            raise _undeclared(cls)
        return renamed(cls.sources[0], cls.__name__)

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the declared derivative; where none is, a function that fails by name as soon as it is computed."""
        if self.missing or len(self.sources) == 1:
            return _made(self.sources[-1:], self.missing + 1)(self.args[0])
        if self.sources[1].partition("\n")[2].strip() == "return 0.0":
            return sympy.S.Zero  # a step, of which a student learns nothing
        return _made(self.sources[1:], 0)(self.args[0])

    def _eval_evalf(self, prec: int) -> sympy.Expr | None:
        x = self.args[0].evalf(17)
        return sympy.Float(float(self._imp_(float(x))), 17) if x.is_Float or x.is_Integer else None

    def _sympystr(self, printer: Any) -> str:
        return f"{self.title}({printer._print(self.args[0])})"

    _plain = _sympystr

    def _pythoncode(self, printer: Any) -> str:
        return f"{type(self).__name__}({printer._print(self.args[0])})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        head, escaped = self.title.rstrip("'"), self.title.rstrip("'").replace("_", r"\_")
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\operatorname{{{escaped}}}{self.title[len(head) :]}{power}({printer._print(self.args[0])})"


class KinkedUserFunction(UserFunction):
    """One with kinks or jumps, which rules for smooth functions blur."""


def user_function(given: Sequence[Callable[[float], float]] | str, argument: str = "activation") -> type[UserFunction]:
    """Return the SymPy function of a Python function and its derivatives, having compared them with each other.

    Parameters
    ----------
    given : sequence of callable, or str
        A function of one number made with ``def``, its derivative, and further ones as far as they are known; or the
        text that defines them, in this order.
    argument : str
        The argument they came from, for the error.

    Raises
    ------
    ModelError
        If one of them has no source text, says more than generated code may, or is not the derivative of the one
        before.

    Examples
    --------
    >>> softsign = user_function("def softsign(x):\\n return x/(1 + abs(x))\\ndef slope(x):\\n return (1 + abs(x))**-2")
    >>> x = sympy.Symbol("x", real=True)
    >>> softsign(x), softsign(x).diff(x), float(softsign(1.0))
    (softsign(x), slope(x), 0.5)
    """
    if isinstance(given, str):
        sources = sources_in(given, argument)
    else:
        sources = tuple(source_of(function, argument) for function in given)
        for function, source in zip(given, sources, strict=True):
            check_source(function, source, argument)
    if len(sources) < 2:
        accepted = "a function and its derivative, (g, slope): the gradient needs it"
        raise ModelError(argument, Described(f"{', '.join(map(title, sources)) or 'nothing'} alone"), accepted)
    check_chain(sources, argument)
    return _made(sources, 0)


_KNOWN: dict[tuple[tuple[str, ...], int], type[UserFunction]] = {}
_NAMED: dict[str, type[UserFunction]] = {}
_making = threading.Lock()


def _made(sources: tuple[str, ...], missing: int) -> type[UserFunction]:
    """Return the function of a chain of source texts, always the same class."""
    with _making:
        if (sources, missing) not in _KNOWN:
            digest = hashlib.sha256("\0".join((*sources, str(missing))).encode()).hexdigest()[:12]
            shown = title(sources[0]) + "'" * missing
            name = f"{title(sources[0])}{'_prime' * missing}_{digest}"
            kind = KinkedUserFunction if not missing and has_kinks(sources[0]) else UserFunction
            facts = {"sources": sources, "missing": missing, "title": shown, "__module__": __name__}
            made = UserFunctionClass(name, (kind,), facts)
            made._imp_ = staticmethod(_undeclared_values(made) if missing else values_of(sources[0]))
            _KNOWN[sources, missing] = _NAMED[name] = made
        return _KNOWN[sources, missing]


def named(name: str) -> type[UserFunction]:
    """Return the function that is called so in generated code."""
    return _NAMED[name]


def user_functions(*expressions: sympy.Basic) -> list[type[UserFunction]]:
    """Return the functions of a user's in some expressions, each once, in the order of their names."""
    return sorted({type(f) for e in expressions for f in e.atoms(UserFunction)}, key=lambda f: f.__name__)


def _undeclared(function: type[UserFunction]) -> NotYet:
    last = title(function.sources[0])
    order = "derivative" if function.missing == 1 else f"derivative of order {function.missing}"
    return NotYet(f"the {order} of {last}", f"declare it after {last}: activation=(g, slope, second derivative, …)")


def _undeclared_values(function: type[UserFunction]) -> Callable[[Any], Any]:
    def values(x: Any) -> Any:
        raise _undeclared(function)

    return values


def _reduce(function: type[UserFunction]) -> Any:
    return (_made, (function.sources, function.missing)) if function.sources else function.__qualname__


copyreg.pickle(UserFunctionClass, _reduce)
