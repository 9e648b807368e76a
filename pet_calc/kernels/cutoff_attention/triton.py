"""The same operation on a GPU: no attention weight is ever written to memory.

One program holds one atom. It runs over the heads with all tokens of the atom on chip (registers
suffice up to 64 tokens, but for the backward pass in the highest precision), reads
queries, keys and values where the packed linear map has left them, and computes the weights again
in the backward pass. As the heads of an atom belong to one program, the gradient of its cutoff
weights is a sum in registers, in a fixed order. Second derivatives, which only training needs, are
those of the reference.
"""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pet_calc.kernels.cutoff_attention import reference
from pet_calc.kernels.derivatives import reference_gradients
from pet_calc.kernels.precision import Precision, current_precision
from pet_calc.kernels.triton_product import product, product_constants


@triton.jit
def weights(
    q, k, bias, scale,
    PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Attention weights; zero for keys whose bias is minus infinity."""
    logits = product(q, tl.trans(k), PRODUCT, ROUNDED, INTERPRETED) * scale + bias[None, :]
    raised = tl.exp(logits - tl.max(logits, 1)[:, None])
    return raised / tl.sum(raised, 1)[:, None]


@triton.jit
def forward_kernel(
    packed, log_weight, out, n_tokens, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
    PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Weighted means of the values of one atom."""
    i = tl.program_id(0).to(tl.int64)
    t, c = tl.arange(0, T), tl.arange(0, W)
    there = (t < n_tokens)[:, None] & (c < WIDTH)[None, :]
    bias = tl.load(log_weight + i * n_tokens + t, mask=t < n_tokens, other=float("-inf"))
    row = (i * n_tokens + t)[:, None]
    for h in range(HEADS):
        cell = row * (3 * HEADS * WIDTH) + h * WIDTH + c[None, :]
        q = tl.load(packed + cell, mask=there, other=0.0)
        k = tl.load(packed + cell + HEADS * WIDTH, mask=there, other=0.0)
        v = tl.load(packed + cell + 2 * HEADS * WIDTH, mask=there, other=0.0)
        p = weights(q, k, bias, scale, PRODUCT, ROUNDED, INTERPRETED)
        o = product(p, v, PRODUCT, ROUNDED, INTERPRETED)
        tl.store(out + row * (HEADS * WIDTH) + h * WIDTH + c[None, :], o, mask=there)


@triton.jit
def backward_kernel(
    packed, log_weight, grad, d_packed, d_weight, n_tokens, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
    PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Gradients on queries, keys, values and cutoff weights of one atom."""
    i = tl.program_id(0).to(tl.int64)
    t, c = tl.arange(0, T), tl.arange(0, W)
    there = (t < n_tokens)[:, None] & (c < WIDTH)[None, :]
    bias = tl.load(log_weight + i * n_tokens + t, mask=t < n_tokens, other=float("-inf"))
    row = (i * n_tokens + t)[:, None]
    d_bias = tl.zeros((T,), bias.dtype)
    for h in range(HEADS):
        cell = row * (3 * HEADS * WIDTH) + h * WIDTH + c[None, :]
        q = tl.load(packed + cell, mask=there, other=0.0)
        k = tl.load(packed + cell + HEADS * WIDTH, mask=there, other=0.0)
        v = tl.load(packed + cell + 2 * HEADS * WIDTH, mask=there, other=0.0)
        # zero on the rows of padding, whose weights thus drop out of all gradients
        g = tl.load(grad + row * (HEADS * WIDTH) + h * WIDTH + c[None, :], mask=there, other=0.0)
        p = weights(q, k, bias, scale, PRODUCT, ROUNDED, INTERPRETED)
        dp = product(g, tl.trans(v), PRODUCT, ROUNDED, INTERPRETED)
        dl = p * (dp - tl.sum(p * dp, 1)[:, None])
        d_bias += tl.sum(dl, 0)
        dq = product(dl, k, PRODUCT, ROUNDED, INTERPRETED) * scale
        tl.store(d_packed + cell, dq, mask=there)
        dk = product(tl.trans(dl), q, PRODUCT, ROUNDED, INTERPRETED) * scale
        tl.store(d_packed + cell + HEADS * WIDTH, dk, mask=there)
        dv = product(tl.trans(p), g, PRODUCT, ROUNDED, INTERPRETED)
        tl.store(d_packed + cell + 2 * HEADS * WIDTH, dv, mask=there)
    tl.store(d_weight + i * n_tokens + t, d_bias, mask=t < n_tokens)


def launch(packed: Tensor, heads: int, precision: Precision) -> dict[str, Any]:
    """Constants of the kernels for such tensors, and the number of warps of a program."""
    n_tokens = packed.shape[1]
    width = packed.shape[2] // (3 * heads)
    # the smallest operand of a product on tensor cores has 16 rows and columns
    tile = max(16, triton.next_power_of_2(n_tokens))
    return {
        "HEADS": heads,
        "WIDTH": width,
        "T": tile,
        "W": max(16, triton.next_power_of_2(width)),
        **product_constants(precision),
        "num_warps": 8 if tile > 64 else 4,
    }


def cutoff_attention(
    packed: Tensor, log_weight: Tensor, heads: int, scale: float,
    precision: Precision | None = None,
) -> Tensor:  # fmt: skip
    """Attention over the tokens of one atom; see the reference.

    By default the products have the precision that is in force. Sums and the softmax are in
    float32 always.
    """
    precision = precision or current_precision()
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    inputs = (packed.contiguous(), log_weight.contiguous())
    return _Attention.apply(*inputs, heads, scale, precision)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, log_weight: Tensor, heads: int, scale: float, precision: Precision
    ) -> Tensor:
        n, t, width = packed.shape
        ctx.save_for_backward(packed, log_weight)
        ctx.heads, ctx.scale, ctx.precision = heads, scale, precision
        out = torch.empty_like(packed[:, :, : width // 3], memory_format=torch.contiguous_format)
        if n > 0:
            how = launch(packed, heads, precision)
            forward_kernel[(n,)](packed, log_weight, out, t, scale, **how)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packed, log_weight = ctx.saved_tensors
        heads, scale = ctx.heads, ctx.scale
        if torch.is_grad_enabled():
            attention = partial(reference.cutoff_attention, heads=heads, scale=scale)
            needed = ctx.needs_input_grad[:2]
            again = reference_gradients(attention, (packed, log_weight), needed, (grad,))
            return (*again, None, None, None)
        n, t, _ = packed.shape
        d_packed, d_weight = torch.empty_like(packed), torch.empty_like(log_weight)
        if n > 0:
            how = launch(packed, heads, ctx.precision)
            tensors = (packed, log_weight, grad.contiguous(), d_packed, d_weight)
            backward_kernel[(n,)](*tensors, t, scale, **how)
        return d_packed, d_weight, None, None, None
