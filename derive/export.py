"""Equations and models as files: a LaTeX article, a plain NumPy module, or JSON that reads back to an equal value.

Nothing here evaluates text: formulas are read by the closed list of :mod:`effdyn.derive.text`, models are built by name
from their plain arguments, and equations without a model are read node by node from a closed table.
"""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sympy
from sympy.printing.numpy import SciPyPrinter

from .errors import ModelError, nearest
from .latex import ReadableForm, activations, readable_form, sorted_moments
from .moments import Dilation, Moment, Univariate, Value
from .text import FUNCTIONS

if TYPE_CHECKING:
    from .dynamics import Dynamics
    from .named_moments import NamedMoment

VERSION = 1
"""Of the JSON documents."""


def write(dyn: "Dynamics", path: str | Path) -> Path:
    """Write a Dynamics in the format that the ending of ``path`` names, and return the path.

    Parameters
    ----------
    dyn : Dynamics
    path : str or Path
        ``.tex`` for an article, ``.py`` for a NumPy module that needs nothing of effdyn, ``.json`` for a document that
        :func:`dynamics_from_json` reads.

    Raises
    ------
    ModelError
        For another ending.

    Examples
    --------
    >>> import tempfile
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="linear").dynamics()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = write(dyn, Path(folder) / "linear.json").read_text(encoding="utf-8")
    >>> dynamics_from_json(text) == dyn
    True
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ModelError(
            "path", str(path), f"a file name that ends in {', '.join(WRITERS)}{nearest(path.suffix, WRITERS)}"
        )
    path.write_text(WRITERS[path.suffix](dyn), encoding="utf-8")
    return path


# --- models as JSON ---------------------------------------------------------------------------------------------------


def model_to_json(model: Any) -> str:
    """Return a model as JSON text: its name and the arguments that differ from their defaults.

    Raises
    ------
    ModelError
        If the text would not read back to an equal model.

    Examples
    --------
    >>> from effdyn import derive
    >>> print(model_to_json(derive.TeacherStudent(activation="He3", second_layer="trained")))
    {
      "model": "TeacherStudent",
      "arguments": {
        "activation": "He3",
        "second_layer": "trained"
      },
      "version": 1
    }
    """
    text = json.dumps(_model_document(model), indent=2, ensure_ascii=False)
    if model_from_json(text) != model:
        raise ModelError(
            "model", model, "a model that its arguments as text determine: write numbers such as 1/3 as fractions"
        )
    return text


def model_from_json(text: str) -> Any:
    """Return the model that JSON text states.

    Raises
    ------
    ModelError
        If it states none.

    Examples
    --------
    >>> from effdyn import derive
    >>> model = derive.TeacherStudent(activation="erf", output_scale="1/sqrt(K)")
    >>> model_from_json(model_to_json(model)) == model
    True
    """
    return _model_from(_document(text, "model"))


def _model_document(model: Any) -> dict[str, Any]:
    return {"model": type(model).__name__, "arguments": model.arguments(), "version": VERSION}


def _models() -> dict[str, Callable[..., Any]]:
    """Return the classes that are models: what the room makes public and states its arguments."""
    room = sys.modules[__package__]
    public = {name: getattr(room, name) for name in room.__all__}
    return {
        name: c
        for name, c in public.items()
        if isinstance(c, type) and hasattr(c, "arguments") and hasattr(c, "dynamics")
    }


def _model_from(document: Mapping[str, Any]) -> Any:
    models = _models()
    name, arguments = document.get("model"), document.get("arguments", {})
    if name not in models:
        raise ModelError("model", name, f"one of {', '.join(map(repr, models))}{nearest(str(name), models)}")
    if not isinstance(arguments, dict) or not all(
        isinstance(v, (str, int, float, bool, type(None))) for v in arguments.values()
    ):
        raise ModelError("arguments", arguments, "an object of texts, numbers, true and false")
    known = {field for field in getattr(models[name], "__dataclass_fields__", {})}
    for argument in arguments:
        if argument not in known:
            raise ModelError(
                argument, arguments[argument], f"{name} takes {', '.join(sorted(known))}{nearest(argument, known)}"
            )
    return models[name](**arguments)


def _document(text: str, key: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError("text", text[:40], f"JSON; at line {error.lineno} there is {error.msg}") from None
    if not isinstance(document, dict) or key not in document:
        raise ModelError("text", text[:40], f"a JSON object with the entry {key!r}")
    if document.get("version") != VERSION:
        raise ModelError(
            "version", document.get("version"), f"{VERSION}, the version of documents that this effdyn writes and reads"
        )
    return document


# --- equations as JSON ------------------------------------------------------------------------------------------------


def dynamics_to_json(dyn: "Dynamics") -> str:
    """Return a Dynamics as JSON text: what it was derived from, and its equations, for readers and for checking.

    Examples
    --------
    >>> from effdyn import derive
    >>> document = json.loads(dynamics_to_json(derive.TeacherStudent(activation="linear").dynamics("gradient-flow")))
    >>> document["equations"]["eg"][:32]
    'Sum(I_2(j, l)*a[j]*a[l], (l, 1, '
    """
    document: dict[str, Any] = {"dynamics": dyn.title, "version": VERSION}
    if dyn.model is not None:
        model_to_json(dyn.model)  # raises where the text does not determine the model
        document["derived_from"] = {**_model_document(dyn.model), "limit": dyn.limit}
    document |= _readable(dyn)
    if dyn.model is None:
        document["tree"] = encode(dyn)
    return json.dumps(document, indent=2, ensure_ascii=False)


def dynamics_from_json(text: str) -> "Dynamics":
    """Return the Dynamics that JSON text states: derived again from its model and checked, or read node by node.

    Raises
    ------
    ModelError
        If it states none, or if the equations in it are not those that its model gives.

    Examples
    --------
    >>> from effdyn import derive
    >>> dyn = derive.TeacherStudent(activation="square").dynamics()
    >>> dynamics_from_json(dynamics_to_json(dyn)) == dyn
    True
    """
    document = _document(text, "dynamics")
    if "derived_from" in document:
        source = document["derived_from"]
        if not isinstance(source, dict):
            raise ModelError("derived_from", source, "an object with the entries 'model', 'arguments' and 'limit'")
        dyn = _model_from(source).dynamics(limit=source.get("limit"))
    else:
        dyn = decode(document.get("tree"))
    expected = json.loads(json.dumps(_readable(dyn)))
    for key, value in expected.items():
        if document.get(key) != value:
            different = (
                sorted(k for k in value if (document.get(key) or {}).get(k) != value[k])
                if isinstance(value, dict)
                else []
            )
            what = f"{key}[{different[0]!r}]" if different else key
            given = (document.get(key) or {}).get(different[0]) if different else document.get(key)
            right = value[different[0]] if different else value
            raise ModelError(what, given, f"what its model gives: {right}")
    return dyn


def _readable(dyn: "Dynamics") -> dict[str, Any]:
    def entry(q: Any) -> dict[str, Any]:
        return {
            "symbol": str(q.symbol),
            "shape": [str(s) for s in q.shape],
            "symmetric": q.symmetric,
            "meaning": q.meaning,
        }

    return {
        "kind": dyn.kind,
        "clock": dyn.clock,
        "status": dyn.status,
        "assumptions": list(dyn.assumptions),
        "states": {q.name: entry(q) for q in dyn.states},
        "parameters": {q.name: entry(q) for q in dyn.parameters},
        "observables": {e.quantity.name: entry(e.quantity) for e in dyn.observables},
        "equations": {
            f"d{q.name}/dt" if moves else q.name: str(dyn.named(expr)) for q, expr, moves in _named_equations(dyn)
        },
        "moments": {m.name: m.text() for m in dyn.moments},
    }


def _named_equations(dyn: "Dynamics") -> Iterator[tuple[Any, sympy.Expr, bool]]:
    yield from ((e.quantity, e.expr, True) for e in dyn.drift)
    yield from ((e.quantity, e.expr, False) for e in dyn.observables)


def _values() -> dict[str, type]:
    from .dynamics import Dynamics, Equation, FieldFamily, Quantity

    return {c.__name__: c for c in (Dynamics, Equation, FieldFamily, Quantity)}


_NODES: dict[str, Callable[..., Any]] = {
    **{c.__name__: c for c in (sympy.Add, sympy.Mul, sympy.Pow, sympy.Sum, sympy.Tuple, sympy.Indexed, sympy.Lambda)},
    **{c.__name__: c for c in (Moment, Dilation, Value, Univariate)},
    **{f.__name__: f for f in FUNCTIONS.values() if isinstance(f, type)},
    **{
        name: (lambda value=value: value)
        for name, value in {"Pi": sympy.pi, "Exp1": sympy.E, "Half": sympy.S.Half}.items()
    },
}
"""The SymPy nodes that a document may contain."""


def encode(value: Any) -> Any:
    """Return a Dynamics or an expression as nested lists, each a node's name and its arguments.

    Examples
    --------
    >>> x = sympy.Symbol("x", real=True)
    >>> encode(2 * x)
    ['Mul', ['Integer', '2'], ['Symbol', 'x', {'real': True}]]
    >>> decode(encode(sympy.sqrt(2 * x))) == sympy.sqrt(2 * x)
    True
    """
    if isinstance(value, tuple):
        return ["tuple", *map(encode, value)]
    if value is None or isinstance(value, (bool, str, float)):
        return ["plain", value]
    if isinstance(value, (sympy.Symbol, sympy.IndexedBase)):
        kind = type(value).__name__
        assumptions = value.assumptions0 if isinstance(value, sympy.IndexedBase) else value._assumptions_orig
        return [
            kind,
            str(value),
            {k: v for k, v in assumptions.items() if k == "real"} if kind == "IndexedBase" else dict(assumptions),
        ]
    if isinstance(value, (sympy.Integer, sympy.Rational)):
        return [("Integer" if value.is_Integer else "Rational"), str(value)]
    if isinstance(value, sympy.Float):
        return ["Float", str(value), value._prec]
    name = type(value).__name__
    if name in _values():
        return [
            name,
            {
                f: encode(getattr(value, f))
                for f in value.__dataclass_fields__
                if f not in ("steps", "dropped", "model", "limit")
            },
        ]
    if name not in _NODES:
        raise ModelError("expression", value, f"made of {', '.join(sorted(_NODES))}")
    return [name, *map(encode, value.args)]


def decode(tree: Any) -> Any:
    """Return what :func:`encode` wrote.

    Raises
    ------
    ModelError
        If a node is not in the closed table.
    """
    match tree:
        case ["tuple", *items]:
            return tuple(map(decode, items))
        case ["plain", None | bool() | str() | float() as value]:
            return value
        case ["Symbol", str(name), dict(assumptions)]:
            return sympy.Symbol(name, **{str(k): bool(v) for k, v in assumptions.items()})
        case ["IndexedBase", str(name), dict(assumptions)]:
            return sympy.IndexedBase(name, **{str(k): bool(v) for k, v in assumptions.items()})
        case ["Integer" | "Rational", str(digits)] if digits.replace("/", "").lstrip("-").isdigit():
            return sympy.Rational(digits)
        case ["Float", str(digits), int(precision)]:
            return sympy.Float(digits, precision=precision)
        case [str(name), dict(arguments)] if name in (values := _values()):
            return values[name](**{str(k): decode(v) for k, v in arguments.items()})
        case [str(name), *arguments] if name in _NODES:
            return _NODES[name](*map(decode, arguments))
    raise ModelError("tree", str(tree)[:60], f"a node among {', '.join(sorted(_NODES))}")


# --- NumPy ------------------------------------------------------------------------------------------------------------


class _NumPy(SciPyPrinter):
    """SymPy's printer for NumPy, with the names as one writes them."""

    def __init__(self) -> None:
        super().__init__({"fully_qualified_modules": True})

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return _python_name(expr.name)

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


def _python_name(name: str) -> str:
    r"""Return C'_23 as C1_23 (one tilt), hat C_11 as V_11, and other names as they are."""
    if name.startswith("hat C"):
        return _python_name(name[4:]).replace("C", "V", 1)
    primes = name.count("'")
    return name.replace("'" * primes, str(primes)) if primes else name


def numpy_module(dyn: "Dynamics") -> str:
    """Return a plain NumPy module with the equations, readable, which needs nothing of effdyn.

    Examples
    --------
    >>> from effdyn import derive
    >>> source = numpy_module(derive.TeacherStudent(activation="linear").dynamics())
    >>> [line for line in source.splitlines() if line.startswith("def")]
    ['def I_2(C):', ..., 'def rhs(t, state, params):', 'def observables(state, params):', ...]
    """
    moments = [_moment_function(m) for m in sorted_moments(dyn)]
    body = [*moments, _AT if dyn.moments else "", _function(dyn, True), _function(dyn, False), _packing(dyn)]
    code = "\n\n\n".join(part for part in body if part)
    imports = ["import numpy as np", *(["import scipy.special"] if "scipy.special" in code else [])]
    return f"{_docstring(dyn)}\n\n{chr(10).join(imports)}\n\n\n{code}\n"


def _docstring(dyn: "Dynamics") -> str:
    lines = [f"{dyn.title}.", "", f"Time t = {dyn.clock}; the equations are {dyn.status}."]
    if dyn.model is not None:
        lines += ["Generated by effdyn from", "", f"    {dyn.model!r}.dynamics(limit={dyn.limit!r})"]
    lines += ["", "Equations", "---------"]
    for quantity, expr, moves in _named_equations(dyn):
        left = f"d{quantity}/dt" if moves else str(quantity)
        lines += textwrap.wrap(f"{left} = {dyn.named(expr)}", 110, subsequent_indent="    ", break_long_words=False)
    h = sympy.Symbol("h", real=True)
    functions = activations(
        [*(e.expr for e in dyn.equations), *(right for step in dyn.steps for _, right in step.equations)]
    )
    lines += [f"{u}(h) = {u.function(h)}" for u in functions]
    for title, items in (
        ("States and parameters", [f"{q} {_shape(q)}: {q.meaning}" for q in (*dyn.states, *dyn.parameters)]),
        ("Observables", [f"{e.quantity} {_shape(e.quantity)}: {e.quantity.meaning}" for e in dyn.observables]),
        ("Assumptions", list(dyn.assumptions)),
    ):
        lines += ["", title, "-" * len(title), *(f"- {item}" for item in items)]
    sizes = ", ".join(map(str, dyn.sizes))
    lines += ["", "Example", "-------", "    from scipy.integrate import solve_ivp", ""]
    lines += [f"    solve_ivp(lambda t, y: pack(rhs(t, unpack(y, {sizes}), params)), (0, 10), pack(start))"]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}\n"""'


def _shape(quantity: Any) -> str:
    return (
        f"({', '.join(map(str, quantity.shape))}{',' if len(quantity.shape) == 1 else ''})"
        if quantity.shape
        else "(scalar)"
    )


def _moment_function(named: "NamedMoment") -> str:
    short, printer = readable_form(named.signature), _NumPy()
    factors = " ".join(f"{f}(h{n})" if f else f"h{n}" for n, f in enumerate(named.shape, 1))
    lines = [
        f"def {named.name}(C):",
        f'    """Return E[{factors}], where C[..., a, b] is the covariance of fields a and b (from 0)."""',
    ]
    needed = _needed(short)
    entries = sorted(s.name for s in needed if s.name.startswith("C_"))
    for name in entries:
        lines.append(f"    {name} = C[..., {int(name[-2]) - 1}, {int(name[-1]) - 1}]")
    for tilt in short.tilts:
        used = [(symbol, expr) for symbol, expr in tilt.entries if symbol in needed]
        if used:
            lines.append(f"    # the covariance under the weight exp(-{sympy.sstr(tilt.alpha / 2)}*h{tilt.field}**2)")
        lines += [f"    {_python_name(symbol.name)} = {printer.code(expr)}" for symbol, expr in used]
    lines += [f"    {_python_name(symbol.name)} = {printer.code(expr)}" for symbol, expr in short.names]
    value = printer.code(short.form)
    lines.append(f"    return {value}" if needed else f"    return np.full(C.shape[:-2], {value})")
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    """Return a line of code, in brackets over several lines where it is long."""
    head, equals, value = line.partition("return " if line.startswith("    return ") else " = ")
    if len(line) <= 110 or not equals or line.lstrip().startswith(("#", "def", '"')):
        return [line]
    inner = textwrap.wrap(value, 100, break_long_words=False, break_on_hyphens=False)
    return [f"{head}{equals}(", *(f"        {part}" for part in inner), "    )"]


def _needed(short: ReadableForm) -> set[sympy.Symbol]:
    """Return the symbols that a form needs, directly or through its definitions."""
    needed = set(short.form.free_symbols)
    definitions = [*(entry for tilt in short.tilts for entry in tilt.entries), *short.names]
    for symbol, expr in reversed(definitions):
        if symbol in needed:
            needed |= expr.free_symbols
    return needed


_AT = '''def at(C, *fields):
    """Return the covariances of one field from each range, an array (len, len, ..., n, n), from those of all fields."""
    grid = np.stack(np.meshgrid(*fields, indexing="ij"), axis=-1)
    return C[grid[..., :, None], grid[..., None, :]]'''


def _function(dyn: "Dynamics", moves: bool) -> str:
    equations = dyn.drift if moves else dyn.observables
    if not equations:
        return ""
    writer = _Einsum(dyn)
    body = []
    for e in equations:
        terms = [writer.term(t, e.quantity.indices) for t in sympy.Add.make_args(e.expr)]
        name = f"d{e.quantity.name}" if moves else e.quantity.name
        text = "".join(
            f"\n        {'-' if negative else '+' if n else ' '} {code}" for n, (negative, code) in enumerate(terms)
        )
        body.append(
            f"    {name} = ({text}\n    )"
            if len(terms) > 1
            else f"    {name} = {'-' if terms[0][0] else ''}{terms[0][1]}"
        )
    returned = ", ".join(
        f'"{e.quantity.name}": {f"d{e.quantity.name}" if moves else e.quantity.name}' for e in equations
    )
    head = "def rhs(t, state, params):" if moves else "def observables(state, params):"
    doc = "Return the time derivatives of the states, by name." if moves else "Return the observables, by name."
    needed = _covariance(dyn, writer) if writer.moments else []
    needed += [f"    {variable} = {call}" for variable, call in writer.moments.items()]
    lines = [head, f'    """{doc}"""', *_unpacking(dyn, "\n".join([*needed, *body])), *needed]
    return "\n".join([*lines, *body, f"    return {{{returned}}}"])


def _unpacking(dyn: "Dynamics", code: str) -> list[str]:
    """Return the lines that name what ``code`` uses of the states, the sizes and the parameters."""
    used = set(re.findall(r"\w+", code))
    used |= {str(size) for q in dyn.parameters if q.name in used for size in q.shape}
    sized = {str(size): q.name for q in reversed(dyn.states) for size in q.shape}
    used |= {name for size, name in sized.items() if size in used}
    lines = [f'    {q.name} = np.asarray(state["{q.name}"], dtype=float)' for q in dyn.states if q.name in used]
    known: set[sympy.Symbol] = set()
    for q in (q for q in dyn.states if q.name in used):
        for axis, size in enumerate(q.shape):
            if size not in known and str(size) in used:
                known.add(size)
                lines.append(f"    {size} = {q.name}.shape[{axis}]")
    for q in (q for q in dyn.parameters if q.name in used):
        given = f'params["{q.name}"]'
        shape = ", ".join(map(str, q.shape)) + ("," if len(q.shape) == 1 else "")
        lines.append(f"    {q.name} = np.broadcast_to({given}, ({shape}))" if q.shape else f"    {q.name} = {given}")
    return lines


def _covariance(dyn: "Dynamics", writer: "_Einsum") -> list[str]:
    """Return the lines that number all fields one after another and put their covariances into one matrix."""
    lines, offset = ["    # all local fields, numbered one family after another, and their covariances"], ""
    for family in dyn.families:
        end = f"{offset} + {family.size}" if offset else str(family.size)
        lines.append(f"    {family.base} = np.arange({offset or 0}, {end})")
        offset = end
    blocks: dict[tuple[str, str], str] = {}
    for (f, g), overlap in dyn.covariance:
        negative, code = writer.term(overlap.expr, overlap.variables)
        blocks[f, g] = f"-{code}" if negative else code
        blocks.setdefault((g, f), f"{blocks[f, g]}.T")
    names = [str(family.base) for family in dyn.families]
    rows = ", ".join(f"[{', '.join(blocks[f, g] for g in names)}]" for f in names)
    return [*lines, f"    C = np.block([{rows}])"]


def _packing(dyn: "Dynamics") -> str:
    sizes = ", ".join(map(str, dyn.sizes))
    names = ", ".join(f'"{q.name}"' for q in dyn.states)
    shapes = ", ".join(
        f'"{q.name}": ({", ".join(map(str, q.shape))}{"," if len(q.shape) == 1 else ""})' for q in dyn.states
    )
    return f'''def pack(state):
    """Return the states as one vector, as solvers want them."""
    return np.concatenate([np.ravel(state[name]) for name in ({names},)])


def unpack(y, {sizes}):
    """Return the states, by name, from one vector."""
    state, start = {{}}, 0
    for name, shape in {{{shapes}}}.items():
        size = int(np.prod(shape))
        state[name], start = np.reshape(y[start : start + size], shape), start + size
    return state'''


class _Einsum:
    """Writes terms of indexed equations as ``np.einsum`` calls, and collects the moments they need."""

    def __init__(self, dyn: "Dynamics") -> None:
        self.dyn = dyn
        quantities = (*dyn.parameters, *(e.quantity for e in dyn.equations))
        self.sizes = {index: size for q in quantities for index, size in zip(q.indices, q.shape, strict=True)}
        self.names = {(m.signature, m.shape): m.name for m in dyn.moments}
        self.printer = _NumPy()
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


def _article(dyn: "Dynamics") -> str:
    from .article import article_latex

    return article_latex(dyn)


WRITERS: dict[str, Callable[["Dynamics"], str]] = {".tex": _article, ".py": numpy_module, ".json": dynamics_to_json}
"""What writes a file, by its ending. A new format is a function and an entry here."""
