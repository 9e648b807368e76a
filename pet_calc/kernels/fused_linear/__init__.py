"""A linear map of tokens with what precedes and follows it."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from pet_calc.kernels.activations import gated_linear_unit, sigmoid_linear_unit
from pet_calc.kernels.fused_linear.reference import Prologue
from pet_calc.kernels.norms import rms_direction
from pet_calc.kernels.operation import beyond, operation

__all__ = ["fused_linear"]

#: Most numbers of a token, whose gradient one program holds.
WIDEST: Final = 256


def limit(x: Tensor, weight: Tensor, bias: Tensor, *_: Any, **__: Any) -> str | None:
    """Why the Triton kernels are not for such tokens; None if they are."""
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        return "weights are trained, whose gradients are torch's"
    return beyond(WIDEST, x.shape[-1], "numbers of a token")


@operation("linear maps", "pet_calc.kernels.fused_linear.triton:fused_linear", limit)
def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None,
    *, prologue: Prologue = "none", gated: bool = False,
) -> Tensor:  # fmt: skip
    """Linear map of tokens with what precedes and follows it.

    Parameters
    ----------
    x, weight, bias, residual, prologue, gated
        As of the reference.
    """
    if prologue == "rms":
        x = rms_direction(x)
    elif prologue == "silu":
        x = sigmoid_linear_unit(x)
    y = functional.linear(x, weight, bias)
    if gated:
        y = gated_linear_unit(y)
    return y if residual is None else residual + y
