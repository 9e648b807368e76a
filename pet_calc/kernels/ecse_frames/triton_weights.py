"""Weights of frames on a GPU: one program per atom.

No pair is written but its weight. The derivatives are those of the formulas of the reference,
computed again from distances and directions; each program sums over the partners of the edges of
its own atom in a fixed order, so that results repeat to the last bit. Second derivatives, which
only training needs, are those of the reference. Everything is in float64, as frames always are.
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
from pet_calc.kernels.ecse_frames import reference
from pet_calc.kernels.ecse_frames.constants import FrameConfig
from pet_calc.kernels.ecse_frames.switches import EDGE
from pet_calc.kernels.ecse_frames.triton_steps import (
    onset_argument,
    starts,
    step,
    step_slope,
    taper_argument,
)

#: Neighbors of one side of a tile of pairs.
TILE = 16


@triton.jit
def edge(r, unit, begin, k, n):
    """Distances and directions of the neighbors `k` of an atom that has `n`."""
    e = begin + k
    there = k < n
    return (
        tl.load(r + e, mask=there, other=0.0),
        tl.load(unit + 3 * e, mask=there, other=0.0),
        tl.load(unit + 3 * e + 1, mask=there, other=0.0),
        tl.load(unit + 3 * e + 2, mask=there, other=0.0),
    )


@triton.jit
def share_of_pair(
    ra, rb, z, apart, low,
    OUTER: tl.constexpr, BETA: tl.constexpr, TAPER: tl.constexpr,
    BEND: tl.constexpr, WIDTH: tl.constexpr, GAP: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """A pair's longer distance, smoothly, and its share of the inner cutoff, with the parts of it.

    The exponential is relative to the shortest distance, `low`.
    """
    counts = apart & (ra < OUTER) & (rb < OUTER) & (z > BEND)
    fa = step(taper_argument(ra, OUTER, TAPER), EDGE)
    fb = step(taper_argument(rb, OUTER, TAPER), EDGE)
    q = step(onset_argument(z, BEND, WIDTH), EDGE)
    s = 1.0 / (1.0 + tl.exp(-BETA * (ra - rb)))
    v = ra * s + rb * (1.0 - s) + GAP
    raised = tl.where(counts, tl.exp(-BETA * (v - low)), 0.0)
    return v, s, fa, fb, q, raised


@triton.jit
def weights_kernel(
    r, unit, first_edge, first_pair, weight, inner, total, lowest,
    OUTER: tl.constexpr, BETA: tl.constexpr, TAPER: tl.constexpr,
    BEND: tl.constexpr, WIDTH: tl.constexpr, GAP: tl.constexpr, EDGE: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """Inner cutoff of one atom and the weights of its pairs."""
    i = tl.program_id(0).to(tl.int64)
    begin = tl.load(first_edge + i)
    n = tl.load(first_edge + i + 1) - begin
    pairs = tl.load(first_pair + i)
    t = tl.arange(0, T)
    low = tl.full((), OUTER, tl.float64)
    a0 = n * 0
    while a0 < n:
        some = tl.load(r + begin + a0 + t, mask=a0 + t < n, other=OUTER)
        low = tl.minimum(low, tl.min(some, 0))
        a0 += T
    s0 = tl.exp(-BETA * (OUTER - low))
    s1 = s0 * OUTER
    a0 = n * 0
    while a0 < n:
        ra, xa, ya, za = edge(r, unit, begin, a0 + t, n)
        b0 = a0
        while b0 < n:
            rb, xb, yb, zb = edge(r, unit, begin, b0 + t, n)
            c = xa[:, None] * xb[None, :] + ya[:, None] * yb[None, :] + za[:, None] * zb[None, :]
            apart = ((a0 + t)[:, None] < (b0 + t)[None, :]) & (b0 + t < n)[None, :]
            v, _s, fa, fb, q, raised = share_of_pair(
                ra[:, None], rb[None, :], 1.0 - c * c, apart, low,
                OUTER, BETA, TAPER, BEND, WIDTH, GAP, EDGE,
            )  # fmt: skip
            share = fa * fb * q * raised
            s0 += tl.sum(tl.sum(share, 1), 0)
            s1 += tl.sum(tl.sum(share * v, 1), 0)
            b0 += T
        a0 += T
    radius = s1 / s0 + TAPER
    tl.store(inner + i, radius)
    tl.store(total + i, s0)
    tl.store(lowest + i, low)
    a0 = n * 0
    while a0 < n:
        ra, xa, ya, za = edge(r, unit, begin, a0 + t, n)
        b0 = a0
        while b0 < n:
            rb, xb, yb, zb = edge(r, unit, begin, b0 + t, n)
            c = xa[:, None] * xb[None, :] + ya[:, None] * yb[None, :] + za[:, None] * zb[None, :]
            z = 1.0 - c * c
            a, b = (a0 + t)[:, None], (b0 + t)[None, :]
            apart = (a < b) & (b < n)
            inside = (ra < radius)[:, None] & (rb < radius)[None, :] & (z > BEND - WIDTH)
            fa = step(taper_argument(ra, radius, TAPER), EDGE)
            fb = step(taper_argument(rb, radius, TAPER), EDGE)
            q = step(onset_argument(z, BEND - WIDTH, WIDTH), EDGE) * (z - (BEND - WIDTH)) / WIDTH
            w = tl.where(inside, fa[:, None] * fb[None, :] * q, 0.0)
            tl.store(weight + pairs + a * (2 * n - a - 1) // 2 + b - a - 1, w, mask=apart)
            b0 += T
        a0 += T


@triton.jit
def through_cutoff(
    ra, rb, z, apart, low, push, mean,
    OUTER: tl.constexpr, BETA: tl.constexpr, TAPER: tl.constexpr,
    BEND: tl.constexpr, WIDTH: tl.constexpr, GAP: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Gradients on the first distance and on z of pairs, through the inner cutoff."""
    v, s, fa, fb, q, raised = share_of_pair(
        ra[:, None], rb[None, :], z, apart, low,
        OUTER, BETA, TAPER, BEND, WIDTH, GAP, EDGE,
    )  # fmt: skip
    raised = raised * push
    by_share = raised * (v - mean)
    by_distance = raised * fa * fb * q * (1.0 - BETA * (v - mean))
    slope = step_slope(taper_argument(ra, OUTER, TAPER), EDGE)[:, None] * (2.0 / TAPER)
    bent = step_slope(onset_argument(z, BEND, WIDTH), EDGE) * (-2.0 / WIDTH)
    apiece = s + (ra[:, None] - rb[None, :]) * BETA * s * (1.0 - s)
    return by_share * slope * fb * q + by_distance * apiece, by_share * fa * fb * bent


@triton.jit
def through_weight(
    ra, rb, z, radius, g,
    TAPER: tl.constexpr, BEND: tl.constexpr, WIDTH: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Gradients on the first distance and on z of pairs from those on their weights."""
    x = taper_argument(ra, radius, TAPER)
    fa = step(x, EDGE)[:, None]
    fb = step(taper_argument(rb, radius, TAPER), EDGE)[None, :]
    linear = (z - (BEND - WIDTH)) / WIDTH
    y = onset_argument(z, BEND - WIDTH, WIDTH)
    q = step(y, EDGE)
    d_a = g * fb * q * linear * step_slope(x, EDGE)[:, None] * (2.0 / TAPER)
    return d_a, g * fa * fb * (step_slope(y, EDGE) * (-2.0 / WIDTH) * linear + q / WIDTH)


@triton.jit
def weights_backward_kernel(
    r, unit, first_edge, first_pair, inner, total, lowest, grad_weight, grad_inner, d_r, d_unit,
    OUTER: tl.constexpr, BETA: tl.constexpr, TAPER: tl.constexpr,
    BEND: tl.constexpr, WIDTH: tl.constexpr, GAP: tl.constexpr, EDGE: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """Gradients on the edges of one atom."""
    i = tl.program_id(0).to(tl.int64)
    begin = tl.load(first_edge + i)
    n = tl.load(first_edge + i + 1) - begin
    pairs = tl.load(first_pair + i)
    radius = tl.load(inner + i)
    s0 = tl.load(total + i)
    low = tl.load(lowest + i)
    mean = radius - TAPER
    t = tl.arange(0, T)
    # the weights push the inner cutoff
    push = tl.load(grad_inner + i)
    a0 = n * 0
    while a0 < n:
        ra, xa, ya, za = edge(r, unit, begin, a0 + t, n)
        b0 = a0
        while b0 < n:
            rb, xb, yb, zb = edge(r, unit, begin, b0 + t, n)
            c = xa[:, None] * xb[None, :] + ya[:, None] * yb[None, :] + za[:, None] * zb[None, :]
            z = 1.0 - c * c
            a, b = (a0 + t)[:, None], (b0 + t)[None, :]
            inside = (ra < radius)[:, None] & (rb < radius)[None, :] & (z > BEND - WIDTH)
            apart = (a < b) & (b < n) & inside
            place = pairs + a * (2 * n - a - 1) // 2 + b - a - 1
            g = tl.load(grad_weight + place, mask=apart, other=0.0)
            fa, fb = taper_argument(ra, radius, TAPER), taper_argument(rb, radius, TAPER)
            ends = step_slope(fa, EDGE)[:, None] * step(fb, EDGE)[None, :]
            ends += step(fa, EDGE)[:, None] * step_slope(fb, EDGE)[None, :]
            q = step(onset_argument(z, BEND - WIDTH, WIDTH), EDGE) * (z - (BEND - WIDTH)) / WIDTH
            push -= tl.sum(tl.sum(g * q * ends, 1), 0) * (2.0 / TAPER)
            b0 += T
        a0 += T
    a0 = n * 0
    while a0 < n:
        ra, xa, ya, za = edge(r, unit, begin, a0 + t, n)
        dr = tl.zeros((T,), tl.float64)
        dx = tl.zeros((T,), tl.float64)
        dy = tl.zeros((T,), tl.float64)
        dz = tl.zeros((T,), tl.float64)
        b0 = n * 0
        while b0 < n:
            rb, xb, yb, zb = edge(r, unit, begin, b0 + t, n)
            c = xa[:, None] * xb[None, :] + ya[:, None] * yb[None, :] + za[:, None] * zb[None, :]
            z = 1.0 - c * c
            a, b = (a0 + t)[:, None], (b0 + t)[None, :]
            apart = (a != b) & (a < n) & (b < n)
            d_a, d_z = through_cutoff(
                ra, rb, z, apart, low, push / s0, mean,
                OUTER, BETA, TAPER, BEND, WIDTH, GAP, EDGE,
            )  # fmt: skip
            inside = (ra < radius)[:, None] & (rb < radius)[None, :] & (z > BEND - WIDTH)
            low_k, high_k = tl.minimum(a, b), tl.maximum(a, b)
            place = pairs + low_k * (2 * n - low_k - 1) // 2 + high_k - low_k - 1
            g = tl.load(grad_weight + place, mask=apart & inside, other=0.0)
            e_a, e_z = through_weight(ra, rb, z, radius, g, TAPER, BEND, WIDTH, EDGE)
            d_a += e_a
            d_z += e_z
            dr += tl.sum(d_a, 1)
            d_c = d_z * (-2.0 * c)
            dx += tl.sum(d_c * xb[None, :], 1)
            dy += tl.sum(d_c * yb[None, :], 1)
            dz += tl.sum(d_c * zb[None, :], 1)
            b0 += T
        e = begin + a0 + t
        there = a0 + t < n
        tl.store(d_r + e, dr, mask=there)
        tl.store(d_unit + 3 * e, dx, mask=there)
        tl.store(d_unit + 3 * e + 1, dy, mask=there)
        tl.store(d_unit + 3 * e + 2, dz, mask=there)
        a0 += T


def weight_constants(outer_cutoff: float, config: FrameConfig) -> dict[str, Any]:
    """Constants of the kernels for pairs; compiled in, as arguments are in float32."""
    return {
        "OUTER": float(outer_cutoff),
        "BETA": config.beta,
        "TAPER": config.taper,
        "BEND": config.collinearity,
        "WIDTH": config.collinearity_width,
        "GAP": reference.LAMBERT / config.beta,
        "EDGE": EDGE,
        "T": TILE,
    }


def pair_weights(
    r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer_cutoff: float, config: FrameConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of pairs of neighbors and inner cutoffs; see the reference."""
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    weight, inner = _Weights.apply(  # type: ignore[no-untyped-call]
        r.contiguous(), unit.contiguous(), atom, n_atoms, outer_cutoff, config
    )
    a, b = reference.neighbor_pairs(atom)
    keep = torch.nonzero(weight.detach() > 0)[:, 0]
    return a[keep], b[keep], weight[keep], inner


def all_weights(
    r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer_cutoff: float, config: FrameConfig
) -> tuple[Tensor, Tensor]:
    """What `_Weights` computes, from the reference: zeros stay in the list of pairs."""
    a, b, weight, inner = reference.pair_weights(r, unit, atom, n_atoms, outer_cutoff, config)
    begin = starts(atom, n_atoms)
    count = begin[1:] - begin[:-1]
    first = torch.cumsum(count * (count - 1) // 2, 0) - count * (count - 1) // 2
    center = atom[a]
    x, y, n = a - begin[center], b - begin[center], count[center]
    place = first[center] + x * (2 * n - x - 1) // 2 + y - x - 1
    n_pairs = int((count * (count - 1) // 2).sum())
    return weight.new_zeros(n_pairs).index_copy(0, place, weight), inner


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer: float,
        config: FrameConfig,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        begin = starts(atom, n_atoms)
        count = begin[1:] - begin[:-1]
        pairs = count * (count - 1) // 2
        first_pair = torch.cumsum(pairs, 0) - pairs
        weight = r.new_zeros(int(pairs.sum()))
        inner, total, lowest = (r.new_empty(n_atoms) for _ in range(3))
        if n_atoms:
            constants = weight_constants(outer, config)
            weights_kernel[(n_atoms,)](
                r, unit, begin, first_pair, weight, inner, total, lowest, **constants
            )
        ctx.save_for_backward(r, unit, atom, begin, first_pair, inner, total, lowest)
        ctx.n_atoms, ctx.outer, ctx.config = n_atoms, outer, config
        return weight, inner

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_inner: Tensor) -> tuple[Tensor | None, ...]:
        r, unit, atom, begin, first_pair, inner, total, lowest = ctx.saved_tensors
        if torch.is_grad_enabled():
            weights = partial(
                all_weights, atom=atom, n_atoms=ctx.n_atoms, outer_cutoff=ctx.outer,
                config=ctx.config,
            )  # fmt: skip
            needed = ctx.needs_input_grad[:2]
            again = reference_gradients(weights, (r, unit), needed, (grad, grad_inner))
            return (*again, None, None, None, None)
        d_r, d_unit = torch.zeros_like(r), torch.zeros_like(unit)
        if ctx.n_atoms:
            weights_backward_kernel[(ctx.n_atoms,)](
                r, unit, begin, first_pair, inner, total, lowest,
                grad.contiguous(), grad_inner.contiguous(), d_r, d_unit,
                **weight_constants(ctx.outer, ctx.config),
            )  # fmt: skip
        return d_r, d_unit, None, None, None, None
