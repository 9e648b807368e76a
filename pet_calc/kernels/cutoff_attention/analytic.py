"""The same operation with derivatives written out, in few passes over memory."""

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
    found = attended(heads_first(packed, 3, heads), log_weight, heads, scale)
    return heads_last(found[None], heads)


def attended(inputs: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
    """The attention of queries, keys and values that are not packed.

    Parameters
    ----------
    inputs : Tensor, shape (3, n_atoms heads, n_tokens, width)
        Queries, keys and values.
    log_weight, heads, scale
        As of `cutoff_attention`.

    Returns
    -------
    Tensor, shape (n_atoms heads, n_tokens, width)
    """
    found: Tensor = _Attended.apply(inputs, log_weight, heads, scale)  # type: ignore[no-untyped-call]
    return found


def heads_first(packed: Tensor, number: int, heads: int) -> Tensor:
    """Tensors side by side, (n_atoms, n_tokens, ...), as (number, n_atoms heads, n_tokens, d)."""
    n, t, width = packed.shape
    d = width // (number * heads)
    split = packed.reshape(n, t, number, heads, d).permute(2, 0, 3, 1, 4)
    return split.reshape(number, n * heads, t, d)


def heads_last(split: Tensor, heads: int) -> Tensor:
    """The inverse of `heads_first`."""
    number, rows, t, d = split.shape
    n = rows // heads
    packed = split.view(number, n, heads, t, d).permute(1, 3, 0, 2, 4)
    return packed.reshape(n, t, number * heads * d)


def attend(q: Tensor, k: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
    """Attention weights, shape (n_atoms heads, n_tokens, n_tokens)."""
    logits = torch.baddbmm(over_keys(log_weight, heads), q, k.transpose(1, 2), alpha=scale)
    return torch.softmax(logits, dim=-1)


def over_keys(log_weight: Tensor, heads: int) -> Tensor:
    """What each key adds to the logits of all heads and queries, (n_atoms heads, 1, n_tokens)."""
    n, t = log_weight.shape
    return log_weight[:, None, None, :].expand(n, heads, 1, t).reshape(n * heads, 1, t)


class _Attended(torch.autograd.Function):
    """`attended`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
        q, k, v = inputs.unbind(0)
        p = attend(q, k, log_weight, heads, scale)
        ctx.save_for_backward(inputs, log_weight, p)
        ctx.heads, ctx.scale = heads, scale
        return torch.bmm(p, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        inputs, log_weight, p = ctx.saved_tensors
        on_inputs, on_weight = _AttendedGradient.apply(  # type: ignore[no-untyped-call]
            grad, inputs, log_weight, p.detach(), ctx.heads, ctx.scale
        )
        return on_inputs, on_weight, None, None


class _AttendedGradient(torch.autograd.Function):
    """Gradients of `_Attended` as functions of the gradient on it and of its inputs.

    The weights p are given, so as not to be computed again, and count as no input.
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, inputs: Tensor, log_weight: Tensor, p: Tensor, heads: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = inputs.unbind(0)
        dp = torch.bmm(grad, v.transpose(1, 2))
        dl = torch._softmax_backward_data(dp, p, -1, p.dtype)
        ctx.save_for_backward(grad, inputs, log_weight, p, dl)
        ctx.heads, ctx.scale = heads, scale
        out = torch.empty_like(inputs)
        torch.bmm(dl, k, out=out[0]).mul_(scale)
        torch.bmm(dl.transpose(1, 2), q, out=out[1]).mul_(scale)
        torch.bmm(p.transpose(1, 2), grad, out=out[2])
        return out, of_keys(dl, log_weight, heads)

    @staticmethod
    def backward(ctx: Any, g_inputs: Tensor, g_weight: Tensor) -> tuple[Any, ...]:
        grad, inputs, log_weight, p, dl = ctx.saved_tensors
        heads, s = ctx.heads, ctx.scale
        q, k, v = inputs.unbind(0)
        g_q, g_k, g_v = g_inputs.unbind(0)
        if torch.is_grad_enabled():  # as functions of the inputs
            p = attend(q, k, log_weight, heads, s)
            dp = torch.bmm(grad, v.transpose(1, 2))
            dl = p * (dp - (dp * p).sum(-1, keepdim=True))
        # what the gradient on the logits, dl = p (dp - <dp>), is multiplied with, from its mean
        g_dl = torch.baddbmm(over_keys(g_weight, heads), g_q, k.transpose(1, 2), alpha=s)
        g_dl.baddbmm_(q, g_k.transpose(1, 2), alpha=s)
        g_dl = g_dl - (g_dl * p).sum(-1, keepdim=True)
        g_dp = p * g_dl
        # p g_p but for a multiple of p, which is taken off, as gradients on logits sum to nothing
        g_p = torch.bmm(grad, g_v.transpose(1, 2))
        g_logits = (dl * g_dl).addcmul_(p, g_p)
        g_logits.addcmul_(p, g_logits.sum(-1, keepdim=True), value=-1)
        on_grad = torch.bmm(p, g_v).baddbmm_(g_dp, v)
        on_q = torch.bmm(dl, g_k).baddbmm_(g_logits, k, alpha=s, beta=s)
        on_k = torch.bmm(dl.transpose(1, 2), g_q)
        on_k.baddbmm_(g_logits.transpose(1, 2), q, alpha=s, beta=s)
        on_v = torch.bmm(g_dp.transpose(1, 2), grad)
        on_inputs = torch.stack([on_q, on_k, on_v])
        return on_grad, on_inputs, of_keys(g_logits, log_weight, heads), None, None, None


def of_keys(logits: Tensor, log_weight: Tensor, heads: int) -> Tensor:
    """Sum over heads and queries of a gradient on the logits, (n_atoms, n_tokens)."""
    n, t = log_weight.shape
    return logits.view(n, heads, t, t).sum((1, 2))
