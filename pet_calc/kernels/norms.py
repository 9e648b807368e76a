"""Normalization of vectors: references, and the same with two derivatives written out.

A derivative written out takes fewer passes over memory than autograd's. In a region that
`torch.compile` compiles the references are used, whose steps it fuses by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_direction(x: Tensor) -> Tensor:
    r"""Divide by the root mean square of the last axis [arXiv:1910.07467].

    .. math:: y = \frac{x}{\sqrt{\langle x^2 \rangle + \epsilon}}

    with the machine epsilon of the dtype as ε, as in ``torch.nn.RMSNorm``.

    Parameters
    ----------
    x : Tensor, shape (..., width)

    Returns
    -------
    Tensor, shape (..., width)
    """
    if torch.compiler.is_compiling():
        return rms_direction_reference(x)
    return _RMSDirection.apply(x)  # type: ignore[no-untyped-call]


def rms_direction_reference(x: Tensor) -> Tensor:
    """Reference of `rms_direction`."""
    mean_square = x.square().mean(-1, keepdim=True)
    return x * torch.rsqrt(mean_square + torch.finfo(x.dtype).eps)


def layer_direction(x: Tensor, eps: float) -> Tensor:
    r"""Deviations from the mean of the last axis over their root mean square [arXiv:1607.06450].

    .. math:: y = \frac{x - \langle x \rangle}
                       {\sqrt{\langle (x - \langle x \rangle)^2 \rangle + \epsilon}}

    Parameters
    ----------
    x : Tensor, shape (..., width)
    eps : float

    Returns
    -------
    Tensor, shape (..., width)
    """
    if torch.compiler.is_compiling():
        return layer_direction_reference(x, eps)
    return _LayerDirection.apply(x, eps)  # type: ignore[no-untyped-call]


def layer_direction_reference(x: Tensor, eps: float) -> Tensor:
    """Reference of `layer_direction`."""
    # not torch's function, whose third derivative is wrong (torch 2.13)
    deviation = x - x.mean(-1, keepdim=True)
    return deviation * torch.rsqrt(deviation.square().mean(-1, keepdim=True) + eps)


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
        return _RMSGradient.apply(grad, x, y.detach(), scale)  # type: ignore[no-untyped-call]


class _RMSGradient(torch.autograd.Function):
    """The gradient r (g - y <g y>) of y = r x for a gradient g, as a function of g and x.

    y and r are given, so as not to be computed again, and count as no input.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        gy = mean(grad, y)
        ctx.save_for_backward(grad, x, y, scale, gy)
        return torch.addcmul(grad, y, gy, value=-1).mul_(scale)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, x, y, scale, gy = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: as functions of x
            scale = inverse_rms(x)
            y = x * scale
            gy = mean(grad, y)
        hy = mean(h, y)
        on_grad = torch.addcmul(h, y, hy, value=-1).mul_(scale)
        return on_grad, bent(h, grad, y, scale, (hy, gy, mean(h, grad))), None, None


class _LayerDirection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, center, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, y, center, scale)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y, center, scale = ctx.saved_tensors
        return _LayerGradient.apply(grad, x, y.detach(), center, scale, ctx.eps), None  # type: ignore[no-untyped-call]


class _LayerGradient(torch.autograd.Function):
    """The gradient r (g - <g> - y <g y>) of y = r (x - <x>), as a function of g and x.

    y, <x> (center) and r (scale) are given, so as not to be computed again, and count as no input.
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, y: Tensor, center: Tensor, scale: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(grad, x, y, center, scale)
        ctx.eps = eps
        shape, wanted = x.shape[-1:], [True, False, False]
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            grad, x, shape, center, scale, None, None, wanted
        )[0]
        return found

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        grad, x, y, center, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: as functions of x
            y = layer_direction(x, ctx.eps)
            scale = torch.rsqrt(x.var(-1, keepdim=True, correction=0) + ctx.eps)
        on_grad = _LayerGradient.apply(h, x, y.detach(), center, scale.detach(), ctx.eps)  # type: ignore[no-untyped-call]
        # as for the root mean square, of deviations from the mean
        mean_h, mean_g = h.mean(-1, keepdim=True), grad.mean(-1, keepdim=True)
        hy, gy = mean(h, y), mean(grad, y)
        means = hy, gy, mean(h, grad) - mean_h * mean_g
        on_x = bent(h, grad, y, scale, means, mean_h * gy + mean_g * hy)
        return on_grad, on_x, None, None, None, None


def mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean of a product over the last axis, shape (..., 1)."""
    return (a * b).mean(-1, keepdim=True)


def bent(
    h: Tensor, grad: Tensor, y: Tensor, scale: Tensor, means: tuple[Tensor, Tensor, Tensor],
    shift: Tensor | None = None,
) -> Tensor:  # fmt: skip
    r"""Gradient on x of the product of h with the gradient r (g - y <g y>) of y = r x.

    .. math:: r^2 \big( y (3 <h y> <g y> - <h g>) - h <g y> - g <h y> \big)

    Parameters
    ----------
    h, grad, y : Tensor, shape (..., width)
    scale : Tensor, shape (..., 1)
        r, the inverse of the root mean square.
    means : tuple of Tensor, shape (..., 1)
        <h y>, <g y> and <h g>.
    shift : Tensor, shape (..., 1), optional
        Added inside the brackets.
    """
    hy, gy, hg = means
    square = scale.square()
    along = square * (3 * hy * gy - hg)
    out = y * along if shift is None else torch.addcmul(square * shift, y, along)
    return out.addcmul_(h, square * gy, value=-1).addcmul_(grad, square * hy, value=-1)
