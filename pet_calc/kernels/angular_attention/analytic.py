"""The same operation with derivatives written out, in few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.angular_attention.reference import spread
from pet_calc.kernels.cutoff_attention.analytic import attended


def angular_attention(
    made: Tensor, harmonics: Tensor, log_weight: Tensor, heads: int, scale: float, degree: int
) -> Tensor:
    """Attention of heads that carry spherical harmonics.

    Parameters
    ----------
    made, harmonics, log_weight, heads, scale, degree
        As of the reference.

    Returns
    -------
    Tensor, shape (n_atoms, n_tokens, width + 2 heads degree)
        Differentiable any number of times.
    """
    carried = _Carried.apply(made, harmonics, heads, degree)  # type: ignore[no-untyped-call]
    found = attended(carried, log_weight, heads, scale)
    result: Tensor = _Invariants.apply(found, harmonics, heads, degree)  # type: ignore[no-untyped-call]
    return result


def parts(degree: int) -> list[slice]:
    """Places of the harmonics of each degree."""
    return [slice(l * l - 1, l * (l + 2)) for l in range(1, degree + 1)]


def views(made: Tensor, heads: int, degree: int) -> tuple[Tensor, Tensor]:
    """Queries, keys, values (3, n_atoms, heads, n_tokens, width), and strengths (..., degree)."""
    n, t, total = made.shape
    rest = 3 * heads * degree
    width = (total - rest) // (3 * heads)
    plain = made[..., : total - rest].view(n, t, 3, heads, width).permute(2, 0, 3, 1, 4)
    strength = made[..., total - rest :].view(n, t, 3, heads, degree).permute(2, 0, 3, 1, 4)
    return plain, strength


def of_heads(harmonics: Tensor) -> Tensor:
    """Harmonics (n_atoms, 1, n_tokens, n_harmonics), the same for all heads."""
    return harmonics[:, None]


class _Carried(torch.autograd.Function):
    """Queries, keys and values (3, n_atoms heads, n_tokens, width + n_harmonics)."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, harmonics: Tensor, heads: int, degree: int) -> Tensor:
        ctx.save_for_backward(made, harmonics)
        ctx.heads, ctx.degree = heads, degree
        plain, strength = views(made, heads, degree)
        width, y = plain.shape[-1], of_heads(harmonics)
        n, t, m = harmonics.shape
        out = made.new_empty(3, n, heads, t, width + m)
        out[..., :width] = plain
        carried = out[..., width:]
        for l, part in enumerate(parts(degree)):
            torch.mul(strength[..., l : l + 1], y[..., part], out=carried[..., part])
        return out.view(3, n * heads, t, width + m)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        made, harmonics = ctx.saved_tensors
        d_made, d_harmonics = _CarriedGradient.apply(  # type: ignore[no-untyped-call]
            grad, made, harmonics, ctx.heads, ctx.degree
        )
        return d_made, d_harmonics, None, None


class _CarriedGradient(torch.autograd.Function):
    """Gradients of `_Carried` as functions of the gradient on it and of its inputs."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, made: Tensor, harmonics: Tensor, heads: int, degree: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(grad, made, harmonics)
        ctx.heads, ctx.degree = heads, degree
        _, strength = views(made, heads, degree)
        d_made = torch.empty_like(made)
        d_plain, d_strength = views(d_made, heads, degree)
        n, t, _ = harmonics.shape
        g = grad.view(3, n, heads, t, grad.shape[-1])
        width, y, share = d_plain.shape[-1], of_heads(harmonics), spread(degree, made)
        d_plain.copy_(g[..., :width])
        carried = g[..., width:]
        d_strength.copy_((carried * y) @ share.T)
        return d_made, (carried * (strength @ share)).sum(0).sum(1)

    @staticmethod
    def backward(ctx: Any, g_made: Tensor, g_harmonics: Tensor) -> tuple[Any, ...]:
        grad, made, harmonics = ctx.saved_tensors
        heads, degree = ctx.heads, ctx.degree
        n, t, m = harmonics.shape
        share, y, g_y = spread(degree, made), of_heads(harmonics), of_heads(g_harmonics)
        _, strength = views(made, heads, degree)
        g_plain, g_strength = views(g_made, heads, degree)
        width = g_plain.shape[-1]
        carried = grad.view(3, n, heads, t, width + m)[..., width:]
        g_share = g_strength @ share
        on_grad = torch.cat([g_plain, g_share * y + (strength @ share) * g_y], dim=-1)
        on_strength = ((carried * g_y) @ share.T).permute(1, 3, 0, 2, 4)
        on_strength = on_strength.reshape(n, t, 3 * heads * degree)
        rest = made.shape[-1] - on_strength.shape[-1]
        on_made = torch.cat([made.new_zeros(n, t, rest), on_strength], dim=-1)
        on_harmonics = (carried * g_share).sum(0).sum(1)
        return on_grad.view(grad.shape), on_made, on_harmonics, None, None


class _Invariants(torch.autograd.Function):
    """What the attention found, and the invariants of its moments, side by side."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, harmonics: Tensor, heads: int, degree: int) -> Tensor:
        ctx.save_for_backward(found, harmonics)
        ctx.heads, ctx.degree = heads, degree
        n, t, m = harmonics.shape
        width = found.shape[-1] - m
        values = found.view(n, heads, t, width + m)
        out = found.new_empty(n, t, heads * (width + 2 * degree))
        out[..., : heads * width].view(n, t, heads, width).copy_(
            values[..., :width].transpose(1, 2)
        )
        both = out[..., heads * width :].view(n, t, 2, heads, degree)
        moments, share = values[..., width:], spread(degree, found)
        both[:, :, 0].copy_(((moments * of_heads(harmonics)) @ share.T).transpose(1, 2))
        both[:, :, 1].copy_((moments.square() @ share.T).transpose(1, 2))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        found, harmonics = ctx.saved_tensors
        heads, degree = ctx.heads, ctx.degree
        n, t, m = harmonics.shape
        width = found.shape[-1] - m
        moments = found.view(n, heads, t, width + m)[..., width:]
        y = of_heads(harmonics)
        plain = grad[..., : heads * width].reshape(n, t, heads, width).transpose(1, 2)
        both = grad[..., heads * width :].reshape(n, t, 2, heads, degree).permute(2, 0, 3, 1, 4)
        share = spread(degree, found)
        first, second = (x @ share for x in both.unbind(0))
        on_moments = first * y + 2.0 * second * moments
        on_found = torch.cat([plain, on_moments], dim=-1)
        return on_found.view(found.shape), (first * moments).sum(1), None, None
