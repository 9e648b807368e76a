"""The same operation with its derivative written out; queries, keys and values stay packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.cutoff_attention import reference


def cutoff_attention(packed: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
    """Attention over the tokens of one atom with a multiplicative weight on every key.

    Parameters
    ----------
    packed : Tensor, shape (n_atoms, n_tokens, 3 width)
        Queries, keys and values side by side, each with its heads side by side.
    log_weight : Tensor, shape (n_atoms, n_tokens)
        Logarithm of each key's cutoff weight; a large negative number hides a token.
    heads : int
    scale : float

    Returns
    -------
    Tensor, shape (n_atoms, n_tokens, width)
        See the reference for the equation; differentiable any number of times.
    """
    if torch.compiler.is_compiling():
        # torch.compile fuses the steps of both passes by itself
        return reference.cutoff_attention(packed, log_weight, heads, scale)
    return _CutoffAttention.apply(packed, log_weight, heads, scale)  # type: ignore[no-untyped-call]


def unpack(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each of shape (n_atoms heads, n_tokens, width / heads)."""
    n, t, width = packed.shape
    split = packed.view(n, t, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    q, k, v = split.reshape(3, n * heads, t, width // (3 * heads)).unbind(0)
    return q, k, v


def attend(q: Tensor, k: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
    """Attention weights, shape (n_atoms heads, n_tokens, n_tokens)."""
    n, t = log_weight.shape
    bias = log_weight[:, None, None, :].expand(n, heads, 1, t).reshape(n * heads, 1, t)
    return torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale), dim=-1)


class _CutoffAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
        n, t, width = packed.shape
        q, k, v = unpack(packed, heads)
        p = attend(q, k, log_weight, heads, scale)
        out = torch.bmm(p, v)
        ctx.save_for_backward(packed, log_weight, q, k, v, p)
        ctx.heads, ctx.scale = heads, scale
        return out.view(n, heads, t, width // (3 * heads)).transpose(1, 2).reshape(n, t, width // 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        packed, log_weight, q, k, v, p = ctx.saved_tensors
        heads, scale = ctx.heads, ctx.scale
        if torch.is_grad_enabled():
            return (*gradients(packed, log_weight, grad, heads, scale), None, None)
        n, t, width = packed.shape
        d = width // (3 * heads)
        g = grad.view(n, t, heads, d).transpose(1, 2).reshape(n * heads, t, d)
        dl = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
        d_weight = dl.view(n, heads, t, t).sum((1, 2))
        dq = torch.bmm(dl, k)
        dk = torch.bmm(dl.transpose(1, 2), q)
        dv = torch.bmm(p.transpose(1, 2), g)
        out = torch.empty_like(packed)
        target = out.view(n, t, 3, heads, d).permute(2, 0, 3, 1, 4)
        torch.mul(dq.view(n, heads, t, d), scale, out=target[0])
        torch.mul(dk.view(n, heads, t, d), scale, out=target[1])
        target[2].copy_(dv.view(n, heads, t, d))
        return out, d_weight, None, None


def gradients(
    packed: Tensor, log_weight: Tensor, grad: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients on the two tensors as functions that can be differentiated again.

    Parameters
    ----------
    packed, log_weight, heads, scale
        As of `cutoff_attention`.
    grad : Tensor, shape (n_atoms, n_tokens, width)
        Gradient on the result.
    """
    n, t, width = packed.shape
    d = width // (3 * heads)
    q, k, v = unpack(packed, heads)
    p = attend(q, k, log_weight, heads, scale)
    g = grad.view(n, t, heads, d).transpose(1, 2).reshape(n * heads, t, d)
    dp = torch.bmm(g, v.transpose(1, 2))
    dl = p * (dp - (dp * p).sum(-1, keepdim=True))
    dq = torch.bmm(dl, k)
    dk = torch.bmm(dl.transpose(1, 2), q)
    dv = torch.bmm(p.transpose(1, 2), g)
    parts = torch.stack([dq * scale, dk * scale, dv])
    d_packed = parts.view(3, n, heads, t, d).permute(1, 3, 0, 2, 4).reshape(n, t, width)
    return d_packed, dl.view(n, heads, t, t).sum((1, 2))
