"""Activations: references, and the same with two derivatives written out.

A derivative written out takes fewer passes over memory than autograd's. In a region that
`torch.compile` compiles the references are used, whose steps it fuses by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def gated_linear_unit(x: Tensor) -> Tensor:
    r"""First half of the last axis times the sigmoid of its second half [arXiv:1612.08083].

    .. math:: y = v\,\sigma(g), \qquad x = [v, g]

    Parameters
    ----------
    x : Tensor, shape (..., 2 width)

    Returns
    -------
    Tensor, shape (..., width)
    """
    if torch.compiler.is_compiling():
        return gated_linear_unit_reference(x)
    return _GatedLinearUnit.apply(x)  # type: ignore[no-untyped-call]


def gated_linear_unit_reference(x: Tensor) -> Tensor:
    """Reference of `gated_linear_unit`."""
    value, gate = x.chunk(2, dim=-1)
    return value * torch.sigmoid(gate)


def sigmoid_linear_unit(x: Tensor) -> Tensor:
    r"""A number times its sigmoid, SiLU [arXiv:1702.03118].

    .. math:: y = x\,\sigma(x)

    Parameters
    ----------
    x : Tensor

    Returns
    -------
    Tensor, shape as x
    """
    if torch.compiler.is_compiling():
        return sigmoid_linear_unit_reference(x)
    return _SigmoidLinearUnit.apply(x)  # type: ignore[no-untyped-call]


def sigmoid_linear_unit_reference(x: Tensor) -> Tensor:
    """Reference of `sigmoid_linear_unit`."""
    return functional.silu(x)


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
        return _GatedGradient.apply(grad, x, y.detach(), opening)  # type: ignore[no-untyped-call]


class _GatedGradient(torch.autograd.Function):
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


class _SigmoidLinearUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.silu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _SigmoidGradient.apply(grad, x)  # type: ignore[no-untyped-call]


class _SigmoidGradient(torch.autograd.Function):
    """The gradient g f' of f = x s for a gradient g, as a function of g and x."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        found: Tensor = torch.ops.aten.silu_backward(grad, x)
        return found

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        # with s' = s (1 - s): f' = s + x s', f'' = 2 s' + x s' (1 - 2 s)
        s = torch.sigmoid(x)
        slope = torch.addcmul(s, s, s, value=-1)
        lift = x * slope
        curvature = torch.add(lift, slope, alpha=2).addcmul_(lift, s, value=-2)
        if torch.is_grad_enabled():
            return h * (s + lift), h * grad * curvature
        # in place: a result in new memory takes longer
        return lift.add_(s).mul_(h), curvature.mul_(grad).mul_(h)
