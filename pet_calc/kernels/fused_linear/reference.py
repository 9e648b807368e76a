"""Reference implementation; it defines the operation."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from pet_calc.kernels.activations import gated_linear_unit_reference
from pet_calc.kernels.norms import rms_direction_reference

#: What is applied to tokens on their way into the product.
Prologue = Literal["none", "rms", "silu"]


def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None,
    *, prologue: Prologue = "none", gated: bool = False,
) -> Tensor:  # fmt: skip
    r"""Linear map of tokens, which are normalized or activated first and may be gated after.

    .. math:: y = r + E\left[P(x)\, W^T + b\right]

    ==============  =========  =====================================================
    symbol          variable   meaning
    ==============  =========  =====================================================
    :math:`P`       prologue   identity, x / sqrt(<x²> + ε), or x σ(x)
    :math:`E`       gated      identity, or v σ(g) of the two halves [v, g]
    :math:`r`       residual   what the result is added to
    ==============  =========  =====================================================

    Parameters
    ----------
    x : Tensor, shape (..., k)
    weight : Tensor, shape (m, k)
    bias : Tensor, shape (m,)
    residual : Tensor, shape (..., m), optional
        With `gated` (..., m / 2), as the result.
    prologue : {"none", "rms", "silu"}
        See `pet_calc.kernels.norms` for the second.
    gated : bool
        See `pet_calc.kernels.activations`.

    Returns
    -------
    Tensor, shape (..., m) or (..., m / 2)
        Differentiable any number of times.
    """
    if prologue == "rms":
        x = rms_direction_reference(x)
    elif prologue == "silu":
        x = functional.silu(x)
    y = functional.linear(x, weight, bias)
    if gated:
        y = gated_linear_unit_reference(y)
    return y if residual is None else residual + y
