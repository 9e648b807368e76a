"""What the Triton kernels of local frames share: smooth steps, and where groups begin."""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def step(x, EDGE: tl.constexpr):
    """`pet_calc.kernels.ecse_frames.switches.smooth_step`."""
    y = tl.minimum(tl.maximum(x, -EDGE), EDGE)
    return 1.0 / (1.0 + tl.exp(-4.0 * y / (y * y - 1.0)))


@triton.jit
def step_slope(x, EDGE: tl.constexpr):
    """Its derivative."""
    y = tl.minimum(tl.maximum(x, -EDGE), EDGE)
    s = 1.0 / (1.0 + tl.exp(-4.0 * y / (y * y - 1.0)))
    d = y * y - 1.0
    return tl.where(tl.abs(x) < EDGE, -4.0 * s * (1.0 - s) * (y * y + 1.0) / (d * d), 0.0)


@triton.jit
def taper_argument(r, radius, TAPER: tl.constexpr):
    """What `step` takes for the cutoff step."""
    return 2.0 * (r - radius + 0.5 * TAPER) / TAPER


@triton.jit
def onset_argument(z, THRESHOLD: tl.constexpr, WIDTH: tl.constexpr):
    """What `step` takes for the onset."""
    return -2.0 * (z - (THRESHOLD + 0.5 * WIDTH)) / WIDTH


def starts(group: Tensor, n_groups: int) -> Tensor:
    """Where each group (n_groups + 1,) begins in the sorted `group`, and where the last ends."""
    return torch.searchsorted(group, torch.arange(n_groups + 1, device=group.device))
