"""exp(-n/2) as a polynomial and an exponent: LLVM vectorises it, a call to the C library it does not."""

import numpy as np
from llvmlite import ir
from numba import float32, int32, njit, types
from numba.extending import intrinsic

from radgs.kernels.numba.options import INNER

_F = np.float32
_HALF_LOG2_E = _F(-0.72134752044448)
# Chebyshev interpolation of 2^x on [-1/2, 1/2], degree 5: relative error below 3e-7 in float32.
_C0, _C1, _C2 = _F(1.00000008), _F(0.693147188), _F(0.240221075)
_C3, _C4, _C5 = _F(0.0555035711), _F(0.00967603192), _F(0.00133908634)
# Beyond this argument the float's exponent would run out.
LARGEST = 160.0


@intrinsic
def _float_from_bits(typing, x):  # noqa: ARG001
    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_from_float(typing, x):  # noqa: ARG001
    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@njit(inline="always", **INNER)
def exp_half(n):
    """exp(-n/2) for 0 <= n <= `LARGEST`, float32."""
    t = n * _HALF_LOG2_E
    k = int32(t - _F(0.5))  # t is not positive, so cutting off is rounding
    x = t - float32(k)
    p = ((((_C5 * x + _C4) * x + _C3) * x + _C2) * x + _C1) * x + _C0
    return _float_from_bits(int32(_bits_from_float(p) + (k << int32(23))))  # type: ignore[call-arg]
