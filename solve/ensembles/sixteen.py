"""A number type for compiled functions: sixteen doubles, one for each lane of the processor's registers.

With it the text of a scalar function, such as the stages of a Runge–Kutta step, serves sixteen members: ``+ - * /``,
``abs``, ``max``, ``min``, ``sqrt`` and comparisons act lane by lane, and scalars are broadcast. LLVM maps vectors of
this length on whatever registers there are (two of AVX-512, four of AVX, eight of NEON), and no loop waits for its
vectoriser, which gives up where it cannot tell that rows of one array do not overlap.

Comparisons give a :class:`Mask`; ``where`` chooses by it. Nothing can branch on a mask.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# (types and code generation for Numba, which has no stubs)

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model

LANES = 16
VECTOR = ir.VectorType(ir.DoubleType(), LANES)
FLAGS = ("reassoc", "contract", "nsz", "arcp")  # as in the functions around: see OPTIONS in dop853.py


class Sixteen(types.Type):
    """Sixteen doubles."""

    def __init__(self) -> None:
        super().__init__(name="Sixteen")

    def can_convert_from(self, typingctx, other):
        """Say that a scalar may stand for sixteen of it, also where a variable is set to 0.0 before a sum."""
        return 3 if isinstance(other, (types.Float, types.Integer)) else None  # numba.core.typeconv.Conversion.safe


class Mask(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


SIXTEEN, MASK = Sixteen(), Mask()


@register_model(Sixteen)
class _SixteenModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, VECTOR)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, ir.VectorType(ir.IntType(1), LANES))


@lower_cast(types.Float, Sixteen)
@lower_cast(types.Integer, Sixteen)
def _broadcast(context, builder, given, wanted, value):
    number = context.cast(builder, value, given, types.float64)
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), zeros)


def _provide(
    function: Any, result: types.Type, arity: int, generate: Callable[..., Any], operand: types.Type = SIXTEEN
) -> None:
    """Let compiled code apply a function or operator to lanes: ``generate`` writes the instructions for it."""
    accepted = (Sixteen, types.Float, types.Integer) if operand is SIXTEEN else (Mask,)

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == arity and operand in args and all(isinstance(a, accepted) for a in args):
                return signature(result, *[operand] * arity)
            return None

    @lower_builtin(function, *[operand] * arity)
    def _lower(context, builder, sig, args):
        return generate(builder, *args)


def _flagged(name: str) -> Callable[..., Any]:
    return lambda builder, a, b: getattr(builder, name)(a, b, flags=FLAGS)


def _compared(sign: str) -> Callable[..., Any]:
    return lambda builder, a, b: builder.fcmp_ordered(sign, a, b)


def _chosen(sign: str) -> Callable[..., Any]:
    """``max`` and ``min`` as Python has them: the first, unless the second is beyond it."""
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(sign, b, a), b, a)


def _of_llvm(name: str) -> Callable[..., Any]:
    def generate(builder, a):
        kind = ir.FunctionType(VECTOR, [VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64")
        return builder.call(function, [a])

    return generate


_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}
for _name, _instruction in _ARITHMETIC.items():
    _provide(getattr(operator, _name), SIXTEEN, 2, _flagged(_instruction))
    _provide(getattr(operator, f"i{_name}"), SIXTEEN, 2, _flagged(_instruction))  # s += x, where s was a scalar
for _operator, _name in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _provide(_operator, MASK, 2, _compared(_name))
_provide(max, SIXTEEN, 2, _chosen(">"))
_provide(min, SIXTEEN, 2, _chosen("<"))
_provide(abs, SIXTEEN, 1, _of_llvm("fabs"))
_provide(math.sqrt, SIXTEEN, 1, _of_llvm("sqrt"))


_provide(operator.and_, MASK, 2, lambda builder, a, b: builder.and_(a, b), MASK)
_provide(operator.or_, MASK, 2, lambda builder, a, b: builder.or_(a, b), MASK)
_provide(operator.invert, MASK, 1, lambda builder, a: builder.not_(a), MASK)


@intrinsic
def as_bits(typing_context, mask):
    """Return a mask as a whole number whose bit l is lane l."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(LANES)), ir.IntType(64))

    return types.int64(MASK), generate


@intrinsic
def lowest_bit(typing_context, bits):
    """Return which is the lowest bit that is set, of a number other than 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def in_all(typing_context, number):
    """Return a number, sixteen times."""

    def generate(context, builder, signature, arguments):
        return arguments[0]

    return SIXTEEN(SIXTEEN), generate


@intrinsic
def sum_of_lanes(typing_context, number):
    """Return the sum of the sixteen."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f64")
        return builder.call(function, [ir.Constant(ir.DoubleType(), -0.0), arguments[0]], fastmath=FLAGS)

    return types.float64(SIXTEEN), generate


@intrinsic
def where(typing_context, mask, a, b):
    """Return ``a`` in the lanes where the mask is true, else ``b``."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return SIXTEEN(MASK, SIXTEEN, SIXTEEN), generate


@intrinsic
def in_sixteens(typing_context, array):
    """Return a view of a C-contiguous array of doubles, sixteen to an element: (…, 16 n) becomes (…, n).

    Without what counts references to it, as its caller holds it: rows are views, and each counts twice, atomically.
    """
    result = types.Array(SIXTEEN, array.ndim, "C", aligned=False)

    def generate(context, builder, signature, arguments):
        given = context.make_array(array)(context, builder, arguments[0])
        view = context.make_array(result)(context, builder)
        integer = given.itemsize.type
        size, sixteen = ir.Constant(integer, 8 * LANES), ir.Constant(integer, LANES)
        shape, strides = cgutils.unpack_tuple(builder, given.shape), cgutils.unpack_tuple(builder, given.strides)
        shape = [*shape[:-1], builder.udiv(shape[-1], sixteen)]
        view.meminfo, view.parent = ir.Constant(view.meminfo.type, None), ir.Constant(view.parent.type, None)
        view.data = builder.bitcast(given.data, view.data.type)
        view.nitems, view.itemsize = builder.udiv(given.nitems, sixteen), size
        view.shape = cgutils.pack_array(builder, shape)
        view.strides = cgutils.pack_array(builder, [*strides[:-1], size])
        return view._getvalue()

    return result(array), generate
