"""Eight neighbouring pixels in one register: the SIMD vocabulary of the CPU kernels.

Numba's own vectoriser gives up on loops with many accumulators and branches. Here a value *is*
eight pixels: `F8` (float32), `I8` (int32) and `Mask` are Numba types lowered to LLVM vectors, with
the usual operators, so that a kernel reads like scalar code and each lane computes exactly what it
would compute alone, whatever its neighbours hold. LLVM splits the vectors on machines with narrower
registers. Branches become `select`; loops run while `any_of(unfinished)`.

Addresses are plain integers (`array.ctypes.data`); a row is eight consecutive elements.
"""

# mypy: allow-untyped-calls, allow-subclassing-any
# Numba and llvmlite carry no types.
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, lower_cast, models, register_model

LANES = 8
ROW_BYTES = 4 * LANES

_I32 = ir.IntType(32)
_VF = ir.VectorType(ir.FloatType(), LANES)
_VI = ir.VectorType(_I32, LANES)
_ZERO = ir.Constant(_VI, [0] * LANES)
# Not reassoc: a sum over dates keeps its order, so that an added empty date changes nothing.
# Not nnan, not ninf: both occur and are tested for.
_FAST = ("contract", "nsz")


class _Vector(types.Type):
    """Eight lanes of one element type."""


class _Rows(types.Type):
    """A fixed number of F8 in the stack frame: what a small local array is to scalar code."""


F8 = _Vector("F8")
I8 = _Vector("I8")
Mask = _Vector("Mask")
Rows = _Rows("Rows")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VF if kind == F8 else _VI)


@register_model(_Rows)
class _RowsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VF.as_pointer())


# -- scalars become eight equal lanes --------------------------------------------------------------


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, _ZERO)


@lower_cast(types.Float, F8)
@lower_cast(types.Integer, F8)
def _scalar_to_f8(context: Any, builder: Any, kind: Any, _to: Any, value: Any) -> Any:
    return _splat(builder, context.cast(builder, value, kind, types.float32), _VF)


@lower_cast(types.Integer, I8)
def _scalar_to_i8(context: Any, builder: Any, kind: Any, _to: Any, value: Any) -> Any:
    return _splat(builder, context.cast(builder, value, kind, types.int32), _VI)


# -- operators -------------------------------------------------------------------------------------

Emit = Callable[[Any, Any, Any], Any]


def _define(operation: Any, meanings: dict[Any, tuple[Any, Emit]]) -> None:
    """Teach Numba `a op b` where at least one side is a vector; the other may be a scalar."""

    @infer_global(operation)
    class _Binary(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = next((a for a in args if a in meanings), None)
            if (
                kind is None
                or kws
                or not all(a == kind or isinstance(a, types.Number) for a in args)
            ):
                return None
            return signature(meanings[kind][0], kind, kind)

    for kind, (_result, emit) in meanings.items():

        def lower(_context: Any, builder: Any, _sig: Any, args: Any, emit: Emit = emit) -> Any:
            return emit(builder, *args)

        lower_builtin(operation, kind, kind)(lower)


def _arithmetic(operations: tuple[Any, ...], on_floats: str, on_integers: str | None) -> None:
    def floats(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, on_floats)(a, b, flags=_FAST)

    def integers(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, str(on_integers))(a, b)

    meanings: dict[Any, tuple[Any, Emit]] = {F8: (F8, floats)}
    if on_integers:
        meanings[I8] = (I8, integers)
    for operation in operations:
        _define(operation, meanings)


def _comparison(operation: Any, symbol: str) -> None:
    def floats(builder: Any, a: Any, b: Any) -> Any:
        return builder.sext(builder.fcmp_ordered(symbol, a, b), _VI)

    def integers(builder: Any, a: Any, b: Any) -> Any:
        return builder.sext(builder.icmp_signed(symbol, a, b), _VI)

    _define(operation, {F8: (Mask, floats), I8: (Mask, integers)})


def _bitwise(operations: tuple[Any, ...], name: str) -> None:
    def integers(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, name)(a, b)

    for operation in operations:
        _define(operation, {Mask: (Mask, integers), I8: (I8, integers)})


_arithmetic((operator.add, operator.iadd), "fadd", "add")
_arithmetic((operator.sub, operator.isub), "fsub", "sub")
_arithmetic((operator.mul, operator.imul), "fmul", None)
_arithmetic((operator.truediv, operator.itruediv), "fdiv", None)
for _operation, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
):
    _comparison(_operation, _symbol)
_define(
    operator.ne,  # as for scalars, NaN differs from everything
    {F8: (Mask, lambda builder, a, b: builder.sext(builder.fcmp_unordered("!=", a, b), _VI))},
)
_bitwise((operator.and_, operator.iand), "and_")
_bitwise((operator.or_, operator.ior), "or_")
_bitwise((operator.xor, operator.ixor), "xor")


# -- intrinsics: typed by the function, lowered by the `emit` it returns ---------------------------


def _intrinsic(function: Callable[..., Any]) -> Any:
    return extending.intrinsic(function)


def _literal_intrinsic(function: Callable[..., Any]) -> Any:
    return extending.intrinsic(prefer_literal=True)(function)


# -- local rows ------------------------------------------------------------------------------------


def _allocate(count: int) -> Callable[..., Any]:
    def emit(_context: Any, builder: Any, _sig: Any, _args: Any) -> Any:
        block = cgutils.alloca_once(builder, ir.ArrayType(_VF, count))
        return builder.bitcast(block, _VF.as_pointer())

    return emit


@_literal_intrinsic
def rows(_typing: Any, bands: Any, times: Any) -> Any:
    """`rows(bands, k)`: uninitialised F8s, a literal k per element of the tuple `bands`."""
    return signature(Rows, bands, times), _allocate(len(bands) * times.literal_value)


@_intrinsic
def triangle(_typing: Any, bands: Any) -> Any:
    """Uninitialised F8s for the lower half of a symmetric matrix, row by row."""
    return signature(Rows, bands), _allocate(len(bands) * (len(bands) + 1) // 2)


@infer_global(operator.getitem)
class _RowsGet(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if not kws and args[0] == Rows and isinstance(args[1], types.Integer):
            return signature(F8, Rows, types.intp)
        return None


@infer_global(operator.setitem)
class _RowsSet(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if not kws and args[0] == Rows and isinstance(args[1], types.Integer):
            return signature(types.none, Rows, types.intp, F8)
        return None


@lower_builtin(operator.getitem, Rows, types.intp)
def _rows_get(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    return builder.load(builder.gep(args[0], [args[1]]))


@lower_builtin(operator.setitem, Rows, types.intp, F8)
def _rows_set(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    builder.store(args[2], builder.gep(args[0], [args[1]]))
    return context.get_dummy_value()


# -- memory ----------------------------------------------------------------------------------------


def _pointer(builder: Any, vector: Any, address: Any, row: Any) -> Any:
    base = builder.inttoptr(address, vector.as_pointer())
    return builder.gep(base, [row])


def _loader(kind: Any, vector: Any) -> Callable[..., Any]:
    def make(_typing: Any, _address: Any, _row: Any) -> Any:
        def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            return builder.load(_pointer(builder, vector, *args), align=4)

        return signature(kind, types.int64, types.int64), emit

    return make


def _storer(kind: Any, vector: Any) -> Callable[..., Any]:
    def make(_typing: Any, _address: Any, _row: Any, _value: Any) -> Any:
        def emit(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            builder.store(args[2], _pointer(builder, vector, args[0], args[1]), align=4)
            return context.get_dummy_value()

        return signature(types.none, types.int64, types.int64, kind), emit

    return make


load = _intrinsic(_loader(F8, _VF))
load_int = _intrinsic(_loader(I8, _VI))
store = _intrinsic(_storer(F8, _VF))
store_int = _intrinsic(_storer(I8, _VI))


@_intrinsic
def load_pixels(_typing: Any, _address: Any, sample: Any) -> Any:
    """Eight consecutive pixels of the type of `sample` (int16, uint16 or float32) as F8."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(context.get_value_type(sig.args[1]), LANES)
        value = builder.load(
            builder.inttoptr(args[0], vector.as_pointer()), align=sample.bitwidth // 8
        )
        if isinstance(sample, types.Float):
            return value
        wide = (builder.sext if sample.signed else builder.zext)(value, _VI)
        return builder.sitofp(wide, _VF)

    return signature(F8, types.int64, sample), emit


# -- functions -------------------------------------------------------------------------------------


def _unary(result: Any, argument: Any, body: Callable[[Any, Any], Any]) -> Any:
    def make(_typing: Any, _value: Any) -> Any:
        def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
            return body(builder, args[0])

        return signature(result, argument), emit

    return _intrinsic(make)


def _call(builder: Any, name: str, value: Any) -> Any:
    kind = ir.FunctionType(_VF, [_VF])
    function = cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{LANES}f32")
    return builder.call(function, [value])


def _any(builder: Any, mask: Any) -> Any:
    signs = builder.icmp_signed("<", mask, _ZERO)
    packed = builder.bitcast(signs, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", packed, ir.Constant(ir.IntType(LANES), 0))


sqrt = _unary(F8, F8, lambda builder, value: _call(builder, "llvm.sqrt", value))
absolute = _unary(F8, F8, lambda builder, value: _call(builder, "llvm.fabs", value))
as_bits = _unary(I8, F8, lambda builder, value: builder.bitcast(value, _VI))
as_floats = _unary(F8, I8, lambda builder, value: builder.bitcast(value, _VF))
as_count = _unary(I8, Mask, lambda builder, value: builder.sub(_ZERO, value))
to_int = _unary(I8, F8, lambda builder, value: builder.fptosi(value, _VI))
halve = _unary(I8, I8, lambda builder, value: builder.lshr(value, ir.Constant(_VI, [1] * LANES)))
sign_fill = _unary(
    I8, I8, lambda builder, value: builder.ashr(value, ir.Constant(_VI, [31] * LANES))
)
invert = _unary(Mask, Mask, lambda builder, value: builder.not_(value))
any_of = _unary(types.boolean, Mask, _any)


def _cast_only(kind: Any) -> Any:
    def make(_typing: Any, _value: Any) -> Any:
        def emit(_context: Any, _builder: Any, _sig: Any, args: Any) -> Any:
            return args[0]

        return signature(kind, kind), emit

    return _intrinsic(make)


f8 = _cast_only(F8)
i8 = _cast_only(I8)


@_intrinsic
def select(_typing: Any, _mask: Any, yes: Any, no: Any) -> Any:
    """Per lane `yes` where the mask is set, else `no`; either may be a scalar."""
    kind = yes if isinstance(yes, _Vector) else no

    def emit(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        # the sign bit decides, as in the hardware's blend
        return builder.select(builder.icmp_signed("<", args[0], _ZERO), args[1], args[2])

    return signature(kind, Mask, kind, kind), emit
