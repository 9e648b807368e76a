"""The same operation with its derivative written out: fewer passes over memory than autograd's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.rms_direction import reference


def rms_direction(x: Tensor) -> Tensor:
    """Divide by the root mean square of the last axis; see the reference."""
    if torch.compiler.is_compiling():
        # torch.compile fuses the steps of both passes by itself
        return reference.rms_direction(x)
    return _RMSDirection.apply(x)  # type: ignore[no-untyped-call]


def inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(<x²> + eps), shape (..., 1)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.rsqrt(norm.square() / x.shape[-1] + torch.finfo(x.dtype).eps)


class _RMSDirection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = inverse_rms(x)
        y = x * scale
        ctx.save_for_backward(x, y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, y, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            # to be differentiated again: as a function of x
            scale = inverse_rms(x)
            y = x * scale
        # dx = scale (g - y <g y>)
        mean = (grad * y).mean(-1, keepdim=True)
        inner = torch.addcmul(grad, y, mean, value=-1)
        return inner * scale if torch.is_grad_enabled() else inner.mul_(scale)
