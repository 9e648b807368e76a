"""The smooth functions of ECSE: a step, and extremes that are differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

#: Beyond this the step is 0 or 1 to the last bit, and so are its derivatives.
EDGE = 1.0 - 1e-3


def smooth_step(x: Tensor) -> Tensor:
    r"""Infinitely smooth step that falls from 1 at x ≤ -1 to 0 at x ≥ 1.

    .. math:: \tfrac12 \tanh\!\left(\frac{1}{x+1} + \frac{1}{x-1}\right) + \tfrac12

    as a sigmoid of twice the argument, which keeps its relative precision where it is small.
    """
    inside = x.clamp(-EDGE, EDGE)
    return torch.sigmoid(4.0 * inside / (inside.square() - 1.0))


def cutoff_step(r: Tensor, radius: Tensor | float, width: float) -> Tensor:
    """1 for r ≤ radius - width, 0 for r ≥ radius, `smooth_step` between."""
    return smooth_step(2.0 * (r - (radius - 0.5 * width)) / width)


def onset(z: Tensor, threshold: Tensor | float, width: Tensor | float) -> Tensor:
    """0 for z ≤ threshold, 1 for z ≥ threshold + width, `smooth_step` between."""
    return smooth_step(-2.0 * (z - (threshold + 0.5 * width)) / width)


def segment_sum(values: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """Sums of `values` (n, ...) that share a `segment` (n,)."""
    return values.new_zeros((n_segments, *values.shape[1:])).index_add(0, segment, values)


def smooth_maximum(
    values: Tensor, weights: Tensor, segment: Tensor, n_segments: int, beta: float
) -> Tensor:
    r"""Weighted mean of each segment that leans to its largest value (smallest for beta < 0).

    .. math:: \frac{\sum_k p_k v_k e^{\beta v_k}}{\sum_k p_k e^{\beta v_k}}

    Returns
    -------
    Tensor, shape (n_segments,)
        0 for a segment without values.
    """
    exponent = beta * values
    top = exponent.new_zeros(n_segments).scatter_reduce(
        0, segment, exponent.detach(), "amax", include_self=False
    )
    share = weights * torch.exp(exponent - top[segment])
    total = segment_sum(share, segment, n_segments)
    return segment_sum(share * values, segment, n_segments) / torch.where(total > 0, total, 1.0)
