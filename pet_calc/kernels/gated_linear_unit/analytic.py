"""The same operation with two derivatives written out; the sigmoid is computed once."""

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
        value, gate = x.chunk(2, dim=-1)
        opening = torch.sigmoid(gate)
        y = value * opening
        ctx.save_for_backward(x, y, opening)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, y, opening = ctx.saved_tensors
        return _Gradient.apply(grad, x, y.detach(), opening)  # type: ignore[no-untyped-call]


class _Gradient(torch.autograd.Function):
    """The gradient [g s, g v s'] of v s for a gradient g, as a function of g and x = [v, gate].

    The value y = v s and the sigmoid s are given, so as not to be computed again, and count as no
    input; s' = s (1 - s).
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, y: Tensor, opening: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x, opening)
        # v s' = y - y s
        inner = torch.addcmul(y, y, opening, value=-1)
        return side_by_side(x, (opening, inner), grad)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, x, s = ctx.saved_tensors
        value, gate = x.chunk(2, dim=-1)
        a, b = g.chunk(2, dim=-1)
        if torch.is_grad_enabled():  # to be differentiated again: as a function of x
            s = torch.sigmoid(gate)
        slope = torch.addcmul(s, s, s, value=-1)
        bend = b * slope
        lift = bend * value
        # a s' + b v s'', with s'' = s' (1 - 2 s)
        second = torch.addcmul(lift, lift, s, value=-2).addcmul_(a, slope)
        if torch.is_grad_enabled():
            on_x = torch.cat([bend * grad, second * grad], dim=-1)
            return torch.addcmul(lift, a, s), on_x, None, None
        # in place: a result in new memory takes longer
        return lift.addcmul_(a, s), side_by_side(x, (bend, second), grad), None, None


def side_by_side(like: Tensor, factors: tuple[Tensor, Tensor], grad: Tensor) -> Tensor:
    """Products of two tensors with a third, as the halves of one, without a copy."""
    out = torch.empty_like(like)
    for factor, half in zip(factors, out.chunk(2, dim=-1), strict=True):
        torch.mul(grad, factor, out=half)
    return out
