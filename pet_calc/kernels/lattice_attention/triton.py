"""The same operation on a GPU: no tensor of all images and heads is ever written to memory.

Forward, one program per atom and head runs over tiles of images with an online softmax. Backward,
weights are computed again from the logarithm of their sum: one kernel per atom and head for
queries and widths, one per atom and head over the images in which the atom is the neighbor for
keys and values, one per tile of images for distances, cutoff weights and encodings. All sums run
in a fixed order, so that results repeat to the last bit. Second derivatives, which only training
needs, are those of the reference.

Loops are written with `while`: Triton's interpreter cannot take the bounds of a `range` from
memory.
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

from pet_calc.kernels.derivatives import reference_gradients
from pet_calc.kernels.lattice_attention import reference
from pet_calc.kernels.lattice_attention.layout import ImageLayout

#: Images that a program handles at once.
TILE = 32


@triton.jit
def forward_kernel(
    query, key, value, falloff, square, log_weight, basis, neighbor, first_slot,
    out_value, out_basis, log_sum, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BASIS: tl.constexpr,
    W: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Weighted means of values and encodings, and the logarithm of the sum of weights."""
    i, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, b, t = tl.arange(0, W), tl.arange(0, B), tl.arange(0, TILE)
    row = (i * HEADS + h) * WIDTH + c
    q = tl.load(query + row, mask=c < WIDTH, other=0.0) * scale
    a = tl.load(falloff + i * HEADS + h)
    begin, end = tl.load(first_slot + i), tl.load(first_slot + i + 1)
    largest = tl.full((), float("-inf"), q.dtype)
    total = tl.zeros((), q.dtype)
    y = tl.zeros((W,), q.dtype)
    z = tl.zeros((B,), q.dtype)
    start = begin
    while start < end:
        e = start + t
        there = e < end
        j = tl.load(neighbor + e, mask=there, other=0)
        cell = (j[:, None] * HEADS + h) * WIDTH + c[None, :]
        both = there[:, None] & (c < WIDTH)[None, :]
        k = tl.load(key + cell, mask=both, other=0.0)
        r2 = tl.load(square + e, mask=there, other=0.0)
        w = tl.load(log_weight + e, mask=there, other=float("-inf"))
        logit = tl.sum(k * q[None, :], 1) - a * r2 + w
        higher = tl.maximum(largest, tl.max(logit, 0))
        p = tl.exp(logit - higher)
        shrink = tl.exp(largest - higher)
        v = tl.load(value + cell, mask=both, other=0.0)
        f = tl.load(
            basis + e[:, None] * BASIS + b[None, :],
            mask=there[:, None] & (b < BASIS)[None, :],
            other=0.0,
        )
        total = total * shrink + tl.sum(p, 0)
        y = y * shrink + tl.sum(p[:, None] * v, 0)
        z = z * shrink + tl.sum(p[:, None] * f, 0)
        largest = higher
        start += TILE
    tl.store(out_value + row, y / total, mask=c < WIDTH)
    tl.store(out_basis + (i * HEADS + h) * BASIS + b, z / total, mask=b < BASIS)
    tl.store(log_sum + i * HEADS + h, largest + tl.log(total))


@triton.jit
def query_kernel(
    query, key, value, falloff, square, log_weight, basis, neighbor, first_slot,
    grad_value, grad_basis, log_sum, mean, out_query, out_falloff, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BASIS: tl.constexpr,
    W: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradients on queries and falloffs."""
    i, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, b, t = tl.arange(0, W), tl.arange(0, B), tl.arange(0, TILE)
    row = (i * HEADS + h) * WIDTH + c
    q = tl.load(query + row, mask=c < WIDTH, other=0.0) * scale
    gy = tl.load(grad_value + row, mask=c < WIDTH, other=0.0)
    gz = tl.load(grad_basis + (i * HEADS + h) * BASIS + b, mask=b < BASIS, other=0.0)
    a = tl.load(falloff + i * HEADS + h)
    shift = tl.load(log_sum + i * HEADS + h)
    average = tl.load(mean + i * HEADS + h)
    begin, end = tl.load(first_slot + i), tl.load(first_slot + i + 1)
    dq = tl.zeros((W,), q.dtype)
    da = tl.zeros((), q.dtype)
    start = begin
    while start < end:
        e = start + t
        there = e < end
        j = tl.load(neighbor + e, mask=there, other=0)
        cell = (j[:, None] * HEADS + h) * WIDTH + c[None, :]
        both = there[:, None] & (c < WIDTH)[None, :]
        k = tl.load(key + cell, mask=both, other=0.0)
        v = tl.load(value + cell, mask=both, other=0.0)
        f = tl.load(
            basis + e[:, None] * BASIS + b[None, :],
            mask=there[:, None] & (b < BASIS)[None, :],
            other=0.0,
        )
        r2 = tl.load(square + e, mask=there, other=0.0)
        w = tl.load(log_weight + e, mask=there, other=float("-inf"))
        p = tl.exp(tl.sum(k * q[None, :], 1) - a * r2 + w - shift)
        dl = p * (tl.sum(v * gy[None, :], 1) + tl.sum(f * gz[None, :], 1) - average)
        dq += tl.sum(dl[:, None] * k, 0)
        da -= tl.sum(dl * r2, 0)
        start += TILE
    tl.store(out_query + row, dq * scale, mask=c < WIDTH)
    tl.store(out_falloff + i * HEADS + h, da)


@triton.jit
def key_kernel(
    query, key, value, falloff, square, log_weight, basis, center, incoming, first_incoming,
    grad_value, grad_basis, log_sum, mean, out_key, out_value, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BASIS: tl.constexpr,
    W: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradients on keys and values: sums over the images in which the atom is the neighbor."""
    j, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, b, t = tl.arange(0, W), tl.arange(0, B), tl.arange(0, TILE)
    row = (j * HEADS + h) * WIDTH + c
    k = tl.load(key + row, mask=c < WIDTH, other=0.0)
    v = tl.load(value + row, mask=c < WIDTH, other=0.0)
    begin, end = tl.load(first_incoming + j), tl.load(first_incoming + j + 1)
    dk = tl.zeros((W,), k.dtype)
    dv = tl.zeros((W,), k.dtype)
    start = begin
    while start < end:
        there = start + t < end
        e = tl.load(incoming + start + t, mask=there, other=0)
        i = tl.load(center + e, mask=there, other=0)
        cell = (i[:, None] * HEADS + h) * WIDTH + c[None, :]
        both = there[:, None] & (c < WIDTH)[None, :]
        q = tl.load(query + cell, mask=both, other=0.0) * scale
        gy = tl.load(grad_value + cell, mask=both, other=0.0)
        wide = there[:, None] & (b < BASIS)[None, :]
        gz = tl.load(
            grad_basis + (i[:, None] * HEADS + h) * BASIS + b[None, :], mask=wide, other=0.0
        )
        f = tl.load(basis + e[:, None] * BASIS + b[None, :], mask=wide, other=0.0)
        a = tl.load(falloff + i * HEADS + h, mask=there, other=0.0)
        shift = tl.load(log_sum + i * HEADS + h, mask=there, other=0.0)
        average = tl.load(mean + i * HEADS + h, mask=there, other=0.0)
        r2 = tl.load(square + e, mask=there, other=0.0)
        w = tl.load(log_weight + e, mask=there, other=float("-inf"))
        p = tl.exp(tl.sum(q * k[None, :], 1) - a * r2 + w - shift)
        dl = p * (tl.sum(gy * v[None, :], 1) + tl.sum(f * gz, 1) - average)
        dk += tl.sum(dl[:, None] * q, 0)
        dv += tl.sum(p[:, None] * gy, 0)
        start += TILE
    tl.store(out_key + row, dk, mask=c < WIDTH)
    tl.store(out_value + row, dv, mask=c < WIDTH)


@triton.jit
def image_kernel(
    query, key, value, falloff, square, log_weight, basis, center, neighbor,
    grad_value, grad_basis, log_sum, mean, out_square, out_weight, out_basis, n_slots, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BASIS: tl.constexpr,
    W: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradients on squared distances, cutoff weights and encodings."""
    c, b = tl.arange(0, W), tl.arange(0, B)
    e = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    there = e < n_slots
    i = tl.load(center + e, mask=there, other=0)
    j = tl.load(neighbor + e, mask=there, other=0)
    both = there[:, None] & (c < WIDTH)[None, :]
    wide = there[:, None] & (b < BASIS)[None, :]
    f = tl.load(basis + e[:, None] * BASIS + b[None, :], mask=wide, other=0.0)
    r2 = tl.load(square + e, mask=there, other=0.0)
    w = tl.load(log_weight + e, mask=there, other=float("-inf"))
    d_square = tl.zeros((TILE,), f.dtype)
    d_weight = tl.zeros((TILE,), f.dtype)
    d_basis = tl.zeros((TILE, B), f.dtype)
    for h in range(HEADS):
        mine = (i[:, None] * HEADS + h) * WIDTH + c[None, :]
        other = (j[:, None] * HEADS + h) * WIDTH + c[None, :]
        q = tl.load(query + mine, mask=both, other=0.0) * scale
        gy = tl.load(grad_value + mine, mask=both, other=0.0)
        k = tl.load(key + other, mask=both, other=0.0)
        v = tl.load(value + other, mask=both, other=0.0)
        gz = tl.load(
            grad_basis + (i[:, None] * HEADS + h) * BASIS + b[None, :], mask=wide, other=0.0
        )
        a = tl.load(falloff + i * HEADS + h, mask=there, other=0.0)
        shift = tl.load(log_sum + i * HEADS + h, mask=there, other=0.0)
        average = tl.load(mean + i * HEADS + h, mask=there, other=0.0)
        p = tl.exp(tl.sum(q * k, 1) - a * r2 + w - shift)
        dl = p * (tl.sum(gy * v, 1) + tl.sum(f * gz, 1) - average)
        d_weight += dl
        d_square -= a * dl
        d_basis += p[:, None] * gz
    tl.store(out_square + e, d_square, mask=there)
    tl.store(out_weight + e, d_weight, mask=there)
    tl.store(out_basis + e[:, None] * BASIS + b[None, :], d_basis, mask=wide)


def lattice_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    falloff: Tensor,
    squared_distance: Tensor,
    log_weight: Tensor,
    basis: Tensor,
    layout: ImageLayout,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of every atom over periodic images; see the reference."""
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    tensors = (query, key, value, falloff, squared_distance, log_weight, basis)
    y, z = _LatticeAttention.apply(  # type: ignore[no-untyped-call]
        *(t.contiguous() for t in tensors), layout, scale
    )
    return y, z


def sizes(query: Tensor, basis: Tensor) -> dict[str, int]:
    """Sizes of the problem and of the blocks, as the kernels take them."""
    _, heads, width = query.shape
    n_basis = basis.shape[1]
    return {
        "HEADS": heads,
        "WIDTH": width,
        "BASIS": n_basis,
        "W": triton.next_power_of_2(width),
        "B": triton.next_power_of_2(max(n_basis, 1)),
        "TILE": TILE,
    }


class _LatticeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, layout, scale = arguments
        query, basis = tensors[0], tensors[6]
        n, heads, _ = query.shape
        y = torch.empty_like(query)
        z = basis.new_empty(n, heads, basis.shape[1])
        log_sum = query.new_empty(n, heads)
        if n:
            forward_kernel[(n, heads)](
                *tensors, layout.neighbor, layout.first_slot, y, z, log_sum, scale,
                **sizes(query, basis),
            )  # fmt: skip
        ctx.save_for_backward(*tensors, y, z, log_sum)
        ctx.layout, ctx.scale = layout, scale
        return y, z

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_z: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, y, z, log_sum = ctx.saved_tensors
        query, square, basis = tensors[0], tensors[4], tensors[6]
        layout, scale = ctx.layout, ctx.scale
        if torch.is_grad_enabled():
            attention = partial(reference.lattice_attention, layout=layout, scale=scale)
            needed = ctx.needs_input_grad[:7]
            again = reference_gradients(attention, tensors, needed, (grad_y, grad_z))
            return (*again, None, None)
        n, heads, _ = query.shape
        found = [torch.empty_like(t) for t in tensors]
        if n == 0:
            return (*found, None, None)
        grad_y, grad_z = grad_y.contiguous(), grad_z.contiguous()
        mean = (grad_y * y).sum(-1) + (grad_z * z).sum(-1)
        more = (grad_y, grad_z, log_sum, mean)
        shape = sizes(query, basis)
        query_kernel[(n, heads)](
            *tensors, layout.neighbor, layout.first_slot, *more, found[0], found[3], scale, **shape
        )
        # stable, so that sums run in one order
        ordered, incoming = torch.sort(layout.neighbor, stable=True)
        first = torch.searchsorted(ordered, torch.arange(n + 1, device=query.device))
        key_kernel[(n, heads)](
            *tensors, layout.center, incoming, first, *more, found[1], found[2], scale, **shape
        )
        image_kernel[(triton.cdiv(len(square), TILE),)](
            *tensors, layout.center, layout.neighbor, *more, *found[4:], len(square), scale,
            **shape,
        )  # fmt: skip
        return (*found, None, None)
