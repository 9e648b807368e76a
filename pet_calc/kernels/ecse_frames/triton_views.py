"""Rotation into the first linear map, and averages over views, on a GPU.

Nothing of the size of all views' directions is written: a program turns the vectors of some slots
of one view into its frame and adds their linear map to what the views of the atom share. In the
backward pass one kernel takes the slots of an atom through all its views, which gives the
gradients on vectors and on what is shared as sums in registers, and another one the views, for
their frames. Vectors and frames are in float64, products in the precision of the tokens. Gradients
on the linear map and second derivatives, which only training needs, are those of the reference.
"""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pet_calc.kernels.derivatives import reference_gradients
from pet_calc.kernels.ecse_frames import reference
from pet_calc.kernels.ecse_frames.reference import AXIAL, ISOTROPIC, TINY
from pet_calc.kernels.ecse_frames.triton_steps import starts

#: Slots that a program handles at once, one by each warp: more do not fit in registers.
TILE = 8
#: Columns of one program of the averages.
COLUMNS = 256


@triton.jit
def vector_of(vectors, slot_edge, atom, slots, width, last):
    """Vectors of some slots of an atom, 1 / length (1 on padding), and where there is an edge."""
    edge = tl.load(slot_edge + atom * width + slots, mask=slots < width, other=last)
    there = edge < last
    x = tl.load(vectors + 3 * edge, mask=there, other=0.0)
    y = tl.load(vectors + 3 * edge + 1, mask=there, other=0.0)
    z = tl.load(vectors + 3 * edge + 2, mask=there, other=0.0)
    square = x * x + y * y + z * z
    return edge, there, x, y, z, square, 1.0 / tl.sqrt(tl.where(there, square, 1.0))


@triton.jit
def frame_of(matrix, view):
    """Nine elements of a frame, row by row."""
    m = matrix + 9 * view
    return (
        tl.load(m), tl.load(m + 1), tl.load(m + 2),
        tl.load(m + 3), tl.load(m + 4), tl.load(m + 5),
        tl.load(m + 6), tl.load(m + 7), tl.load(m + 8),
    )  # fmt: skip


@triton.jit
def across(x, y, z, square, ux, uy, uz, TINY: tl.constexpr):
    r"""\|x × u\| for the axis u, as the reference has it."""
    cx, cy, cz = y * uz - z * uy, z * ux - x * uz, x * uy - y * ux
    return tl.sqrt(cx * cx + cy * cy + cz * cz + TINY)


@triton.jit
def projected(gradient, projection, row, c, WIDTH: tl.constexpr, dtype):
    """Products (slots,) of gradients (slots, d) with one row of the linear map."""
    w = tl.load(projection + row * WIDTH + c, mask=c < WIDTH, other=0.0)
    return tl.sum(gradient * w[None, :], 1).to(dtype)


@triton.jit
def embedding_kernel(
    base, projection, vectors, slot_edge, row, matrix, sign, kind, out, width, last,
    WIDTH: tl.constexpr, D: tl.constexpr, UNIT: tl.constexpr, S: tl.constexpr,
    AXIAL: tl.constexpr, ISOTROPIC: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    """Some slots of one view."""
    view = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * S + tl.arange(0, S)
    c = tl.arange(0, D)
    atom = tl.load(row + view)
    _edge, _there, x, y, z, square, short = vector_of(vectors, slot_edge, atom, slots, width, last)
    a, b, d, e, f, g, h, k, m = frame_of(matrix, view)
    what = tl.load(kind + view)
    first, second, third = x * a + y * e + z * h, x * b + y * f + z * k, x * d + y * g + z * m
    if what == AXIAL:
        second = across(x, y, z, square, a, e, h, TINY)
        third = third * 0.0
    if what == ISOTROPIC:
        first = tl.sqrt(square + TINY)
        second = second * 0.0
        third = third * 0.0
    second = second * tl.load(sign + view)
    cell = (slots[:, None] < width) & (c < WIDTH)[None, :]
    from_base = (atom * width + slots)[:, None] * WIDTH + c[None, :]
    token = tl.load(base + from_base, mask=cell, other=0.0)
    for q in tl.static_range(3):
        seen = first if q == 0 else (second if q == 1 else third)
        w = tl.load(projection + q * WIDTH + c, mask=c < WIDTH, other=0.0)
        token += seen.to(token.dtype)[:, None] * w[None, :]
        if UNIT:
            w = tl.load(projection + (3 + q) * WIDTH + c, mask=c < WIDTH, other=0.0)
            token += (seen * short).to(token.dtype)[:, None] * w[None, :]
    tl.store(out + (view * width + slots)[:, None] * WIDTH + c[None, :], token, mask=cell)


@triton.jit
def seen_gradient(
    gradient, projection, c, short, WIDTH: tl.constexpr, UNIT: tl.constexpr, Q: tl.constexpr, dtype
):
    """Gradient on coordinate Q of the vectors in a view, and on 1 / length without the factor."""
    plain = projected(gradient, projection, Q, c, WIDTH, dtype)
    by_unit = plain * 0.0
    if UNIT:
        by_unit = projected(gradient, projection, 3 + Q, c, WIDTH, dtype)
    return plain + by_unit * short, by_unit


@triton.jit
def slots_backward_kernel(
    projection, vectors, slot_edge, first_view, matrix, sign, kind, grad, d_base, d_vectors,
    width, last,
    WIDTH: tl.constexpr, D: tl.constexpr, UNIT: tl.constexpr, S: tl.constexpr,
    AXIAL: tl.constexpr, ISOTROPIC: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    """Gradients on what the views share and on the vectors, for some slots of one atom."""
    atom = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * S + tl.arange(0, S)
    c = tl.arange(0, D)
    edge, there, x, y, z, square, short = vector_of(vectors, slot_edge, atom, slots, width, last)
    cell = (slots[:, None] < width) & (c < WIDTH)[None, :]
    dx, dy, dz, d_short = x * 0.0, x * 0.0, x * 0.0, x * 0.0
    view = tl.load(first_view + atom)
    end = tl.load(first_view + atom + 1)
    shared = tl.zeros((S, D), grad.dtype.element_ty)
    while view < end:
        place = (view * width + slots)[:, None] * WIDTH + c[None, :]
        g = tl.load(grad + place, mask=cell, other=0.0)
        shared += g
        a, b, d, e, f, q, h, k, m = frame_of(matrix, view)
        what = tl.load(kind + view)
        s = tl.load(sign + view)
        g1, u1 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 0, x.dtype)
        g2, u2 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 1, x.dtype)
        g3, u3 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 2, x.dtype)
        g2, u2 = g2 * s, u2 * s
        along = x * a + y * e + z * h
        if what == AXIAL:
            beside = across(x, y, z, square, a, e, h, TINY)
            d_short += u1 * along + u2 * beside
            # of |x|² |u|² - (x·u)²
            axis = a * a + e * e + h * h
            dx += g1 * a + g2 * (x * axis - a * along) / beside
            dy += g1 * e + g2 * (y * axis - e * along) / beside
            dz += g1 * h + g2 * (z * axis - h * along) / beside
        else:
            if what == ISOTROPIC:
                length = tl.sqrt(square + TINY)
                d_short += u1 * length
                dx += g1 * x / length
                dy += g1 * y / length
                dz += g1 * z / length
            else:
                d_short += u1 * along + u2 * (x * b + y * f + z * k) + u3 * (x * d + y * q + z * m)
                dx += g1 * a + g2 * b + g3 * d
                dy += g1 * e + g2 * f + g3 * q
                dz += g1 * h + g2 * k + g3 * m
        view += 1
    bend = d_short * short * short * short
    tl.store(d_vectors + 3 * edge, dx - bend * x, mask=there)
    tl.store(d_vectors + 3 * edge + 1, dy - bend * y, mask=there)
    tl.store(d_vectors + 3 * edge + 2, dz - bend * z, mask=there)
    tl.store(d_base + (atom * width + slots)[:, None] * WIDTH + c[None, :], shared, mask=cell)


@triton.jit
def frames_backward_kernel(
    projection, vectors, slot_edge, row, matrix, sign, kind, grad, d_matrix, width, last,
    WIDTH: tl.constexpr, D: tl.constexpr, UNIT: tl.constexpr, S: tl.constexpr,
    AXIAL: tl.constexpr, ISOTROPIC: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    """Gradient on the frame of one view."""
    view = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, S)
    c = tl.arange(0, D)
    atom = tl.load(row + view)
    what = tl.load(kind + view)
    s = tl.load(sign + view)
    a, _b, _d, e, _f, _q, h, _k, _m = frame_of(matrix, view)
    d1x, d1y, d1z = a * 0.0, a * 0.0, a * 0.0
    d2x, d2y, d2z = a * 0.0, a * 0.0, a * 0.0
    d3x, d3y, d3z = a * 0.0, a * 0.0, a * 0.0
    start = width * 0
    while start < width:
        slots = start + t
        _edge, _there, x, y, z, square, short = vector_of(
            vectors, slot_edge, atom, slots, width, last
        )
        cell = (slots[:, None] < width) & (c < WIDTH)[None, :]
        place = (view * width + slots)[:, None] * WIDTH + c[None, :]
        g = tl.load(grad + place, mask=cell, other=0.0)
        g1, _u1 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 0, x.dtype)
        g2, _u2 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 1, x.dtype)
        g3, _u3 = seen_gradient(g, projection, c, short, WIDTH, UNIT, 2, x.dtype)
        g2 = g2 * s
        if what == AXIAL:
            beside = across(x, y, z, square, a, e, h, TINY)
            along = x * a + y * e + z * h
            d1x += tl.sum(g1 * x + g2 * (a * square - x * along) / beside, 0)
            d1y += tl.sum(g1 * y + g2 * (e * square - y * along) / beside, 0)
            d1z += tl.sum(g1 * z + g2 * (h * square - z * along) / beside, 0)
        else:
            if what != ISOTROPIC:
                d1x += tl.sum(g1 * x, 0)
                d1y += tl.sum(g1 * y, 0)
                d1z += tl.sum(g1 * z, 0)
                d2x += tl.sum(g2 * x, 0)
                d2y += tl.sum(g2 * y, 0)
                d2z += tl.sum(g2 * z, 0)
                d3x += tl.sum(g3 * x, 0)
                d3y += tl.sum(g3 * y, 0)
                d3z += tl.sum(g3 * z, 0)
        start += S
    out = d_matrix + 9 * view
    tl.store(out, d1x)
    tl.store(out + 1, d2x)
    tl.store(out + 2, d3x)
    tl.store(out + 3, d1y)
    tl.store(out + 4, d2y)
    tl.store(out + 5, d3y)
    tl.store(out + 6, d1z)
    tl.store(out + 7, d2z)
    tl.store(out + 8, d3z)


@triton.jit
def average_kernel(values, first_view, weight, out, n, C: tl.constexpr):
    """Some columns of the average over the views of one atom."""
    atom = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * C + tl.arange(0, C)
    view = tl.load(first_view + atom)
    end = tl.load(first_view + atom + 1)
    total = tl.zeros((C,), values.dtype.element_ty)
    while view < end:
        total += tl.load(values + view * n + c, mask=c < n, other=0.0) * tl.load(weight + view)
        view += 1
    tl.store(out + atom * n + c, total, mask=c < n)


@triton.jit
def average_backward_kernel(
    values, row, weight, grad, d_values, d_weight, n, C: tl.constexpr
):  # fmt: skip
    """Gradients on the values and the weight of one view."""
    view = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, C)
    atom = tl.load(row + view)
    w = tl.load(weight + view)
    total = w * 0.0
    start = n * 0
    while start < n:
        c = start + t
        g = tl.load(grad + atom * n + c, mask=c < n, other=0.0)
        v = tl.load(values + view * n + c, mask=c < n, other=0.0)
        total += tl.sum(g * v, 0)
        tl.store(d_values + view * n + c, g * w, mask=c < n)
        start += C
    tl.store(d_weight + view, total)


def constants(d: int, *, unit: bool) -> dict[str, Any]:
    """Constants of the kernels for tokens of width `d`, and the number of warps of a program."""
    return {
        "WIDTH": d,
        "D": max(16, triton.next_power_of_2(d)),
        "UNIT": unit,
        "S": TILE,
        "AXIAL": AXIAL,
        "ISOTROPIC": ISOTROPIC,
        "TINY": TINY,
        "num_warps": TILE,
    }


def framed_embedding(
    base: Tensor, projection: Tensor, vectors: Tensor, slot_edge: Tensor, row: Tensor,
    matrix: Tensor, sign: Tensor, kind: Tensor,
) -> Tensor:  # fmt: skip
    """Rotation into the first linear map; see the reference."""
    if not len(row):
        return base[:0]
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    arguments = (base, projection, vectors, slot_edge, row, matrix, sign, kind)
    return _Embedding.apply(*(t.contiguous() for t in arguments))  # type: ignore[no-untyped-call]


def view_average(values: Tensor, row: Tensor, weight: Tensor, n_atoms: int) -> Tensor:
    """Weighted sums over the views of each atom; see the reference."""
    if not len(row):
        return values.new_zeros(n_atoms, values.shape[1])
    return _Average.apply(values.contiguous(), row, weight.contiguous(), n_atoms)  # type: ignore[no-untyped-call]


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        base, projection, vectors, slot_edge, row, matrix, sign, kind = arguments
        ctx.save_for_backward(*arguments)
        width, d = slot_edge.shape[1], base.shape[1]
        out = base.new_empty(len(row) * width, d)
        grid = (len(row), triton.cdiv(width, TILE))
        embedding_kernel[grid](
            base, projection, vectors, slot_edge, row, matrix, sign, kind, out,
            width, len(vectors) - 1, **constants(d, unit=len(projection) == 6),
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        base, projection, vectors, slot_edge, row, matrix, sign, kind = ctx.saved_tensors
        if torch.is_grad_enabled() or ctx.needs_input_grad[1]:
            needed = ctx.needs_input_grad
            embedding = reference.framed_embedding
            return tuple(reference_gradients(embedding, ctx.saved_tensors, needed, (grad,)))
        width, d = slot_edge.shape[1], base.shape[1]
        grad = grad.contiguous()
        d_base, d_matrix = torch.empty_like(base), torch.empty_like(matrix)
        d_vectors = torch.zeros_like(vectors)
        how = constants(d, unit=len(projection) == 6)
        last = len(vectors) - 1
        first_view = starts(row, len(slot_edge))
        slots_backward_kernel[(len(slot_edge), triton.cdiv(width, TILE))](
            projection, vectors, slot_edge, first_view, matrix, sign, kind, grad,
            d_base, d_vectors, width, last, **how,
        )  # fmt: skip
        frames_backward_kernel[(len(row),)](
            projection, vectors, slot_edge, row, matrix, sign, kind, grad, d_matrix,
            width, last, **how,
        )  # fmt: skip
        return d_base, None, d_vectors, None, None, d_matrix, None, None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, row: Tensor, weight: Tensor, n_atoms: int) -> Tensor:
        ctx.save_for_backward(values, row, weight)
        n = values.shape[1]
        out = values.new_empty(n_atoms, n)
        first_view = starts(row, n_atoms)
        average_kernel[(n_atoms, triton.cdiv(n, COLUMNS))](
            values, first_view, weight, out, n, C=COLUMNS
        )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:
        values, row, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            mine = grad.index_select(0, row)
            return mine * weight, None, (mine * values).sum(1, keepdim=True), None
        d_values, d_weight = torch.empty_like(values), torch.empty_like(weight)
        average_backward_kernel[(len(row),)](
            values, row, weight, grad.contiguous(), d_values, d_weight, values.shape[1], C=COLUMNS
        )
        return d_values, None, d_weight, None
