"""Removal of small weights of frames on a GPU: one program per group.

The weights before each pass are kept for the backward pass. Second derivatives, which only training
needs, are those of the reference. Everything is in float64, as frames always are.
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
from pet_calc.kernels.ecse_frames.triton_steps import starts, step, step_slope, taper_argument


@triton.jit
def largest_of(w, there, BETA: tl.constexpr):
    """Smooth maximum of the weights of a group, with what its derivative needs."""
    raised = tl.where(there, tl.exp(BETA * (w - tl.max(w, 0))), 0.0)
    total = tl.sum(w * raised, 0)
    total = tl.where(total > 0.0, total, 1.0)
    return tl.sum(w * w * raised, 0) / total, raised, total


@triton.jit
def largest_slope(w, m, raised, total, BETA: tl.constexpr):
    """Its derivative by each weight."""
    return raised * (2.0 * w + BETA * w * w - m * (1.0 + BETA * w)) / total


@triton.jit
def pruning_kernel(
    weight, first, out, frame_free, stages, n_pairs,
    BETA: tl.constexpr, HAND: tl.constexpr, ONSET: tl.constexpr, ONSET_WIDTH: tl.constexpr,
    THRESHOLD: tl.constexpr, WIDTH: tl.constexpr, PASSES: tl.constexpr, EDGE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Weights of one group after all passes; those before each of them are kept."""
    i = tl.program_id(0).to(tl.int64)
    e = tl.load(first + i) + tl.arange(0, BLOCK)
    there = e < tl.load(first + i + 1)
    w = tl.load(weight + e, mask=there, other=0.0)
    m, _raised, _total = largest_of(w, there, BETA)
    tl.store(frame_free + i, step(taper_argument(m, HAND, HAND), EDGE))
    off = step(taper_argument(m, ONSET, ONSET_WIDTH), EDGE)
    for k in tl.static_range(PASSES):
        tl.store(stages + k * n_pairs + e, w, mask=there)
        if k > 0:
            m, _raised, _total = largest_of(w, there, BETA)
        unit = tl.where(m > 0.0, m, 1.0)
        rise = step(-2.0 * (w - (THRESHOLD + 0.5 * WIDTH) * unit) / (WIDTH * unit), EDGE)
        w = w * (rise * (1.0 - off) + off)
    tl.store(out + e, w, mask=there)


@triton.jit
def pruning_backward_kernel(
    weight, first, stages, grad, grad_free, d_weight, n_pairs,
    BETA: tl.constexpr, HAND: tl.constexpr, ONSET: tl.constexpr, ONSET_WIDTH: tl.constexpr,
    THRESHOLD: tl.constexpr, WIDTH: tl.constexpr, PASSES: tl.constexpr, EDGE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients on the weights of one group, pass by pass from the last."""
    i = tl.program_id(0).to(tl.int64)
    e = tl.load(first + i) + tl.arange(0, BLOCK)
    there = e < tl.load(first + i + 1)
    w0 = tl.load(weight + e, mask=there, other=0.0)
    m0, raised0, total0 = largest_of(w0, there, BETA)
    off = step(taper_argument(m0, ONSET, ONSET_WIDTH), EDGE)
    g = tl.load(grad + e, mask=there, other=0.0)
    d_off = tl.zeros((), tl.float64)
    for back in tl.static_range(PASSES):
        k = PASSES - 1 - back
        w = tl.load(stages + k * n_pairs + e, mask=there, other=0.0)
        m, raised, total = largest_of(w, there, BETA)
        unit = tl.where(m > 0.0, m, 1.0)
        x = -2.0 * (w - (THRESHOLD + 0.5 * WIDTH) * unit) / (WIDTH * unit)
        rise = step(x, EDGE)
        slope = step_slope(x, EDGE) * (1.0 - off) * w * g
        d_off += tl.sum(g * w * (1.0 - rise), 0)
        d_m = tl.sum(slope * 2.0 * w / (WIDTH * unit * unit), 0)
        g = g * (rise * (1.0 - off) + off) - slope * 2.0 / (WIDTH * unit)
        g += d_m * largest_slope(w, m, raised, total, BETA)
    d_most = d_off * step_slope(taper_argument(m0, ONSET, ONSET_WIDTH), EDGE) * (2.0 / ONSET_WIDTH)
    d_free = tl.load(grad_free + i)
    d_most += d_free * step_slope(taper_argument(m0, HAND, HAND), EDGE) * (2.0 / HAND)
    g += d_most * largest_slope(w0, m0, raised0, total0, BETA)
    tl.store(d_weight + e, g, mask=there)


def pruning_constants(config: FrameConfig, block: int) -> dict[str, Any]:
    """Constants of the kernels for groups of at most `block` pairs."""
    return {
        "BETA": config.beta_weights,
        "HAND": config.hand_over,
        "ONSET": config.pruning_onset,
        "ONSET_WIDTH": config.pruning_onset_width,
        "THRESHOLD": config.pruning_threshold,
        "WIDTH": config.pruning_width,
        "PASSES": config.num_prunings,
        "EDGE": EDGE,
        "BLOCK": block,
    }


def pruned_weights(
    weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig
) -> tuple[Tensor, Tensor]:
    """Weights without the small ones; see the reference."""
    return _Pruning.apply(weight.contiguous(), group, n_groups, config)  # type: ignore[no-untyped-call]


class _Pruning(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig
    ) -> tuple[Tensor, Tensor]:
        first = starts(group, n_groups)
        most = int((first[1:] - first[:-1]).max()) if n_groups else 0
        constants = pruning_constants(config, max(16, triton.next_power_of_2(max(1, most))))
        out, frame_free = torch.empty_like(weight), weight.new_empty(n_groups)
        stages = weight.new_empty(config.num_prunings, len(weight))
        if n_groups:
            pruning_kernel[(n_groups,)](
                weight, first, out, frame_free, stages, len(weight), **constants
            )
        ctx.save_for_backward(weight, group, first, stages)
        ctx.n_groups, ctx.config, ctx.constants = n_groups, config, constants
        return out, frame_free

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_free: Tensor) -> tuple[Tensor | None, ...]:
        weight, group, first, stages = ctx.saved_tensors
        if torch.is_grad_enabled():
            pruned = partial(
                reference.pruned_weights, group=group, n_groups=ctx.n_groups, config=ctx.config
            )
            again = reference_gradients(pruned, (weight,), (True,), (grad, grad_free))
            return (*again, None, None, None)
        d_weight = torch.empty_like(weight)
        if ctx.n_groups:
            pruning_backward_kernel[(ctx.n_groups,)](
                weight, first, stages, grad.contiguous(), grad_free.contiguous(), d_weight,
                len(weight), **ctx.constants,
            )  # fmt: skip
        return d_weight, None, None, None
