"""The same operation with its derivative written out; only its input is kept for that.

Whatever is kept goes to main memory and back, which takes longer than a sigmoid does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.gated_linear_unit import reference


def gated_linear_unit(x: Tensor) -> Tensor:
    """First half of the last axis times the sigmoid of its second half; see the reference."""
    if torch.compiler.is_compiling():
        # torch.compile fuses the steps of both passes by itself
        return reference.gated_linear_unit(x)
    return _GatedLinearUnit.apply(x)  # type: ignore[no-untyped-call]


class _GatedLinearUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        value, gate = x.chunk(2, dim=-1)
        return torch.sigmoid(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value, gate = x.chunk(2, dim=-1)
        opening = torch.sigmoid(gate)
        if torch.is_grad_enabled():
            # to be differentiated again: as a function of x
            y = value * opening
            return torch.cat([grad * opening, grad * (y - y * opening)], dim=-1)
        width = value.shape[-1]
        out = torch.empty_like(x)
        to_value, to_gate = out[..., :width], out[..., width:]
        torch.mul(grad, opening, out=to_value)
        # g v s' = g s v (1 - s)
        torch.mul(to_value, value, out=to_gate)
        to_gate.addcmul_(to_gate, opening, value=-1)
        return out
