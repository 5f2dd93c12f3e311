"""Eight float32 numbers in one register, for numba.

The compiler vectorises a loop only where it can prove, or tests at run time, that the arrays do not overlap; for loops of some
tens of numbers the tests take longer than the work, and sums go through memory. Each function here is one instruction. On
processors with shorter or longer registers the results are the same.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, register_model

from ctrlab.kernels.compile import compiled

LANES = 8
#: Numbers of 32 bits in a line of the cache.
CACHE_LINE = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)

#: 2^r for r in [-0.5, 0.5], to 2e-9 of it: the polynomial of degree 6 whose greatest relative error is the least.
_POWERS = (
    1.0000000005541674, 0.6931472057372605, 0.2402264689061989, 0.055503287769757735, 0.009618488958660812, 0.001339993121575579,
    0.00015345811586086616,
)  # fmt: skip
#: 1.5 * 2^23: a float32 of this size has no room for a fraction, so that adding it rounds to a whole number.
_ROUNDS = 12582912.0


def _instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic` with a type that callers can be checked against."""
    made: Callable[..., Any] = intrinsic(function)
    return made


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__("eight float32 numbers")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of_type: Any) -> None:
        super().__init__(manager, of_type, _FLOATS)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [ir.Constant(ir.FloatType(), value)] * LANES)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [ir.Constant(ir.IntType(32), value)] * LANES)


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


def _numbers(array: Any) -> bool:
    """Whether numba types it as a contiguous one-dimensional float32 array; an intrinsic refuses others by returning None."""
    return isinstance(array, types.Array) and (array.ndim, array.layout, array.dtype) == (1, "C", types.float32)


@_instruction
def load(typing_context: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]] | None:
    """array[index : index + 8] of a contiguous float32 array of one dimension; nothing checks its end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *arguments), align=4)

    return (vector(array, types.intp), generate) if _numbers(array) else None


@_instruction
def store(typing_context: Any, array: Any, index: Any, x: Any) -> tuple[Any, Callable[..., Any]] | None:
    """array[index : index + 8] = x."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return (types.void(array, types.intp, vector), generate) if _numbers(array) and array.mutable else None


@_instruction
def all_lanes(typing_context: Any, number: Any) -> tuple[Any, Callable[..., Any]]:
    """The float32 number eight times."""

    return vector(types.float32), lambda context, builder, signature, xs: _spread(builder, xs[0])


def _spread(builder: Any, number: Any) -> Any:
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), _whole(0))


@_instruction
def spread(typing_context: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]] | None:
    """The number array[index] eight times; negative indices are not counted from the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _spread(builder, builder.load(builder.gep(data, [arguments[1]])))

    return (vector(array, types.intp), generate) if _numbers(array) else None


@_instruction
def add(typing_context: Any, x: Any, y: Any) -> tuple[Any, Callable[..., Any]]:
    """x + y."""
    return vector(vector, vector), lambda context, builder, signature, xs: builder.fadd(*xs)


@_instruction
def subtract(typing_context: Any, x: Any, y: Any) -> tuple[Any, Callable[..., Any]]:
    """x - y."""
    return vector(vector, vector), lambda context, builder, signature, xs: builder.fsub(*xs)


@_instruction
def multiply(typing_context: Any, x: Any, y: Any) -> tuple[Any, Callable[..., Any]]:
    """x y."""
    return vector(vector, vector), lambda context, builder, signature, xs: builder.fmul(*xs)


@_instruction
def divide(typing_context: Any, x: Any, y: Any) -> tuple[Any, Callable[..., Any]]:
    """x / y."""
    return vector(vector, vector), lambda context, builder, signature, xs: builder.fdiv(*xs)


@_instruction
def multiply_add(typing_context: Any, x: Any, y: Any, z: Any) -> tuple[Any, Callable[..., Any]]:
    """x y + z, rounded once where the processor can."""
    return vector(vector, vector, vector), lambda context, builder, signature, xs: _multiply_add(builder, *xs)


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@_instruction
def square_root(typing_context: Any, x: Any) -> tuple[Any, Callable[..., Any]]:
    """The square root of x."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of_type = ir.FunctionType(_FLOATS, [_FLOATS])
        return builder.call(get_or_insert_function(builder.module, of_type, f"llvm.sqrt.v{LANES}f32"), arguments)

    return vector(vector), generate


@_instruction
def prefetch(typing_context: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """Prefetch the cache line of array[index], of a contiguous one-dimensional array: rows of a large table lie far apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, (array, index) = signature.args[0], arguments
        place = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        of_type = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], of_type)
        to_read, keep, data = (ir.Constant(integer, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(place, byte), to_read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@compiled()
def prefetch_row(array: Any, start: int, width: int) -> None:
    """`prefetch` for every cache line of array[start : start + width], float32."""
    for place in range(start, start + width, CACHE_LINE):
        prefetch(array, place)


@_instruction
def larger(typing_context: Any, x: Any, y: Any) -> tuple[Any, Callable[..., Any]]:
    """Of each pair the larger number; y where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y = arguments
        return builder.select(builder.fcmp_ordered(">", x, y), x, y)

    return vector(vector, vector), generate


@_instruction
def where_positive(typing_context: Any, x: Any, y: Any, z: Any) -> tuple[Any, Callable[..., Any]]:
    """y where x <= 0, else z."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return builder.select(builder.fcmp_ordered("<=", x, _constant(0.0)), y, z)

    return vector(vector, vector, vector), generate


@_instruction
def power_of_two(typing_context: Any, x: Any) -> tuple[Any, Callable[..., Any]]:
    """2^x for x <= 0, to 2e-7 of it; 0 under 2^-126.5, NaN of NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        least = _constant(-127.0)
        x = builder.select(builder.fcmp_ordered("<", arguments[0], least), least, arguments[0])
        shifted = builder.fadd(x, _constant(_ROUNDS))
        rest = builder.fsub(x, builder.fsub(shifted, _constant(_ROUNDS)))
        out = _constant(_POWERS[-1])
        for coefficient in _POWERS[-2::-1]:
            out = _multiply_add(builder, out, rest, _constant(coefficient))
        # The whole part lies in the last bits of the shifted number; 127 more of it is the exponent of a float32.
        exponent = builder.shl(builder.add(builder.bitcast(shifted, _INTEGERS), _whole(127)), _whole(23))
        return builder.fmul(out, builder.bitcast(exponent, _FLOATS))

    return vector(vector), generate
