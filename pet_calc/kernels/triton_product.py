"""Matrix products of Triton kernels in the three precisions."""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, Final

import triton
import triton.language as tl

from pet_calc.kernels.operation import interpreted
from pet_calc.kernels.precision import Precision

#: Precision of Triton's products, and whether operands are rounded to bfloat16. The highest is that
#: of float32, by three products of TensorFloat-32.
PRODUCTS: Final = {
    "highest": ("tf32x3", False),
    "high": ("tf32", False),
    "fast": ("tf32", True),
}


@triton.jit
def product(a, b, PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr):
    """Matrix product, summed in the precision of the operands as they are stored."""
    if ROUNDED:
        if INTERPRETED:  # which has no product of bfloat16, and makes them of float32 alone
            a = a.to(tl.float32).to(tl.bfloat16).to(tl.float32)
            b = b.to(tl.float32).to(tl.bfloat16).to(tl.float32)
            return tl.dot(a, b)
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    return tl.dot(a, b, input_precision=PRODUCT)


def product_constants(precision: Precision) -> dict[str, Any]:
    """Constants of `product`, as kernels take them."""
    name, rounded = PRODUCTS[precision]
    return {"PRODUCT": name, "ROUNDED": rounded, "INTERPRETED": interpreted()}
