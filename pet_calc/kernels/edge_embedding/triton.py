"""The same operation on a GPU: the geometry of an edge is never written to memory.

One program holds a block of edges. It computes their geometry on chip, as the columns of a tile,
and multiplies it with the matrix; in the backward pass it does so again, and turns the gradient on
each tile into those on vectors and cutoffs. Those on table and matrix, which only training needs,
and second derivatives are those of the reference.
"""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from pet_calc.kernels.derivatives import reference_gradients
from pet_calc.kernels.edge_embedding import reference
from pet_calc.kernels.edge_embedding.reference import TINY, Encoding
from pet_calc.kernels.precision import Precision, current_precision

#: Precision of Triton's products. Vectors in bfloat16 would be off by 0.01 Å.
PRODUCTS: Final = {"highest": "tf32x3", "high": "tf32", "fast": "tf32"}
_PI: Final = tl.constexpr(3.141592653589793)


@triton.jit
def sine_and_cosine(s):
    """sin(π s) and cos(π s) for 0 ≤ s ≤ 1.

    By their series around 1/2, exact in float64: the library's reduction of large arguments, which
    do not occur, takes a stack.
    """
    x = _PI * (s - 0.5)
    q = x * x
    sine = 1.0 + q * 0.0
    cosine = 1.0 + q * 0.0
    for k in tl.static_range(11):
        cosine = 1.0 - q * cosine * (1.0 / ((22 - 2 * k) * (21 - 2 * k)))
        sine = 1.0 - q * sine * (1.0 / ((22 - 2 * k) * (23 - 2 * k)))
    return cosine, -x * sine


@triton.jit
def edges_of(vectors, mask, e, n, TINY: tl.constexpr):
    """Whether the edges of a block count, their vectors, and their lengths."""
    there = tl.load(mask + e, mask=e < n, other=0) != 0
    x = tl.load(vectors + e * 3, mask=there, other=0.0)
    y = tl.load(vectors + e * 3 + 1, mask=there, other=0.0)
    z = tl.load(vectors + e * 3 + 2, mask=there, other=0.0)
    return there, x, y, z, tl.sqrt(x * x + y * y + z * z + TINY)


@triton.jit
def gaussians_of(r, c, centers, spacing, N_RADIAL: tl.constexpr):
    """Gaussians in the columns 7 and on, 0 in all others; and (r - c) / s² there."""
    inside = (c >= 7) & (c < 7 + N_RADIAL)
    center = tl.load(centers + c - 7, mask=inside, other=0.0)
    away = (r[:, None] - center[None, :]) / spacing
    value = tl.where(inside[None, :], tl.exp(-0.5 * away * away), 0.0)
    return value, away / spacing


@triton.jit
def forward_kernel(
    vectors, mask, species, cutoff, centers, table, matrix, hidden, weight, n, spacing, width,
    RADIAL: tl.constexpr, N_RADIAL: tl.constexpr, SMOOTH: tl.constexpr, TINY: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, G: tl.constexpr, C: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """Token inputs and cutoff weights of a block of edges."""
    e = tl.program_id(0).to(tl.int64) * E + tl.arange(0, E)
    c = tl.arange(0, G)
    there, x, y, z, r = edges_of(vectors, mask, e, n, TINY)
    geometry = tl.where(c[None, :] == 0, x[:, None], 0.0)
    geometry = tl.where(c[None, :] == 1, y[:, None], geometry)
    geometry = tl.where(c[None, :] == 2, z[:, None], geometry)
    geometry = tl.where(c[None, :] == 3, r[:, None], geometry)
    if RADIAL:
        geometry = tl.where(c[None, :] == 4, (x / r)[:, None], geometry)
        geometry = tl.where(c[None, :] == 5, (y / r)[:, None], geometry)
        geometry = tl.where(c[None, :] == 6, (z / r)[:, None], geometry)
        raised, _ = gaussians_of(r, c, centers, spacing, N_RADIAL)
        geometry += raised
    geometry = tl.where(there[:, None], geometry, 0.0)
    rows = 7 + N_RADIAL if RADIAL else 4
    kind = tl.load(species + e, mask=e < n, other=0)
    for first in range(0, D, C):
        d = first + tl.arange(0, C)
        m = tl.load(
            matrix + c[:, None] * D + d[None, :],
            mask=(c < rows)[:, None] & (d < D)[None, :], other=0.0,
        )  # fmt: skip
        cells = (e < n)[:, None] & (d < D)[None, :]
        h = tl.load(table + kind[:, None] * D + d[None, :], mask=cells, other=0.0)
        h += tl.dot(geometry, m, input_precision=PRODUCT)
        tl.store(hidden + e[:, None] * D + d[None, :], h, mask=cells)

    radius = tl.load(cutoff + e, mask=there, other=1.0)
    s = (r - (radius - width)) / width
    if SMOOTH:
        sine, cosine = sine_and_cosine(tl.minimum(tl.maximum(s, 1e-6), 1.0 - 1e-6))
        u = 2.0 * cosine / sine
        small = tl.exp(-tl.abs(u))
        f = tl.where(u >= 0, 1.0, small) / (1.0 + small)
    else:
        # a square, which is accurate where f is small
        _, half = sine_and_cosine(0.5 * tl.minimum(tl.maximum(s, 0.0), 1.0))
        f = half * half
    tl.store(weight + e, tl.where(there, f, 0.0), mask=e < n)


@triton.jit
def backward_kernel(
    vectors, mask, cutoff, centers, matrix, grad, grad_weight, d_vectors, d_cutoff, n,
    spacing, width,
    RADIAL: tl.constexpr, N_RADIAL: tl.constexpr, SMOOTH: tl.constexpr, TINY: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, G: tl.constexpr, C: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """Gradients on vectors and cutoffs of a block of edges."""
    e = tl.program_id(0).to(tl.int64) * E + tl.arange(0, E)
    c = tl.arange(0, G)
    there, x, y, z, r = edges_of(vectors, mask, e, n, TINY)
    rows = 7 + N_RADIAL if RADIAL else 4
    g = tl.zeros((E, G), x.dtype)
    for first in range(0, D, C):
        d = first + tl.arange(0, C)
        m = tl.load(
            matrix + c[None, :] * D + d[:, None],
            mask=(c < rows)[None, :] & (d < D)[:, None], other=0.0,
        )  # fmt: skip
        cells = there[:, None] & (d < D)[None, :]
        dh = tl.load(grad + e[:, None] * D + d[None, :], mask=cells, other=0.0)
        g += tl.dot(dh, m, input_precision=PRODUCT)

    radius = tl.load(cutoff + e, mask=there, other=1.0)
    s = (r - (radius - width)) / width
    if SMOOTH:
        sine, cosine = sine_and_cosine(tl.minimum(tl.maximum(s, 1e-6), 1.0 - 1e-6))
        small = tl.exp(-tl.abs(2.0 * cosine / sine))
        slope = 2.0 * _PI / width * small / ((1.0 + small) * (1.0 + small)) / (sine * sine)
    else:
        sine, _ = sine_and_cosine(tl.minimum(tl.maximum(s, 0.0), 1.0))
        slope = 0.5 * _PI / width * sine
    slope = tl.where((s > 0) & (s < 1), slope, 0.0)
    fall = tl.load(grad_weight + e, mask=there, other=0.0) * slope
    dx = tl.sum(tl.where(c[None, :] == 0, g, 0.0), 1)
    dy = tl.sum(tl.where(c[None, :] == 1, g, 0.0), 1)
    dz = tl.sum(tl.where(c[None, :] == 2, g, 0.0), 1)
    dr = tl.sum(tl.where(c[None, :] == 3, g, 0.0), 1) - fall
    if RADIAL:
        ux = tl.sum(tl.where(c[None, :] == 4, g, 0.0), 1)
        uy = tl.sum(tl.where(c[None, :] == 5, g, 0.0), 1)
        uz = tl.sum(tl.where(c[None, :] == 6, g, 0.0), 1)
        raised, steps = gaussians_of(r, c, centers, spacing, N_RADIAL)
        dr -= (ux * x + uy * y + uz * z) / (r * r) + tl.sum(g * raised * steps, 1)
        dx += ux / r
        dy += uy / r
        dz += uz / r
    dr = dr / r
    tl.store(d_vectors + e * 3, dx + dr * x, mask=e < n)
    tl.store(d_vectors + e * 3 + 1, dy + dr * y, mask=e < n)
    tl.store(d_vectors + e * 3 + 2, dz + dr * z, mask=e < n)
    tl.store(d_cutoff + e, fall, mask=e < n)


def launch(matrix: Tensor, encoding: Encoding, precision: Precision) -> dict[str, Any]:
    """Constants of the kernels for such tensors, and the number of warps of a program."""
    rows, d = matrix.shape
    return {
        "RADIAL": encoding.radial,
        "N_RADIAL": rows - 7 if encoding.radial else 0,
        "SMOOTH": encoding.smooth,
        "TINY": TINY,
        "D": d,
        "E": 32,
        # the smallest operand of a product on tensor cores has 16 rows and columns
        "G": max(16, triton.next_power_of_2(rows)),
        # more columns at a time spill
        "C": min(32, max(16, triton.next_power_of_2(d))),
        "PRODUCT": PRODUCTS[precision],
        "num_warps": 4,
    }


def edge_embedding(
    vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
    table: Tensor, matrix: Tensor, encoding: Encoding, precision: Precision | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Token inputs and cutoff weights; see the reference.

    By default the products have the precision that is in force.
    """
    precision = precision or current_precision()
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    inputs = (vectors, mask, species, cutoff, centers, table, matrix)
    contiguous = (t.contiguous() for t in inputs)
    return _EdgeEmbedding.apply(*contiguous, encoding, precision)  # type: ignore[no-untyped-call]


class _EdgeEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
        table: Tensor, matrix: Tensor, encoding: Encoding, precision: Precision,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        inputs = (vectors, mask, species, cutoff, centers, table, matrix)
        ctx.save_for_backward(*inputs)
        ctx.encoding, ctx.precision = encoding, precision
        n = len(vectors)
        hidden = torch.empty(n, matrix.shape[1], dtype=vectors.dtype, device=vectors.device)
        weight = torch.empty_like(cutoff)
        if n > 0:
            how = launch(matrix, encoding, precision)
            forward_kernel[(triton.cdiv(n, how["E"]),)](
                *inputs, hidden, weight, n, encoding.spacing, encoding.width, **how
            )
        return hidden, weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_weight: Tensor) -> tuple[Tensor | None, ...]:
        vectors, mask, _, cutoff, centers, _, matrix = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled() or needed[5] or needed[6]:
            embedding = partial(reference.edge_embedding, encoding=ctx.encoding)
            grads = (grad, grad_weight)
            again = reference_gradients(embedding, ctx.saved_tensors, needed[:7], grads)
            return (*again, None, None)
        n = len(vectors)
        d_vectors, d_cutoff = torch.empty_like(vectors), torch.empty_like(cutoff)
        if n > 0:
            how = launch(matrix, ctx.encoding, ctx.precision)
            tensors = (vectors, mask, cutoff, centers, matrix)
            backward_kernel[(triton.cdiv(n, how["E"]),)](
                *tensors, grad.contiguous(), grad_weight.contiguous(), d_vectors, d_cutoff, n,
                ctx.encoding.spacing, ctx.encoding.width, **how,
            )  # fmt: skip
        return d_vectors, None, None, d_cutoff, None, None, None, None, None
