"""Learning rates as functions of the progress of a training."""

from __future__ import annotations

import math


def half_cosine(begin: float, end: float, phase: float) -> float:
    """From `begin` at phase 0 to `end` at phase 1 along half a cosine."""
    return end + 0.5 * (begin - end) * (1.0 + math.cos(math.pi * phase))


def warmup_cosine(step: int, *, steps: int, warmup: int, peak: float, final: float) -> float:
    """Linear warm-up to the peak, then half a cosine down to the final rate.

    Parameters
    ----------
    step : int
        0-based.
    steps, warmup : int
        Length of the schedule, and of its warm-up.
    peak, final : float
        Learning rates.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    phase = min(1.0, (step - warmup) / max(1, steps - warmup))
    return half_cosine(peak, final, phase)


def one_cycle(time: float, *, total: float, peak: float) -> float:
    """Up from peak / 25 over the first 30 %, and down to peak / 10⁴ [Smith, arXiv:1708.07120].

    Both along half a cosine; `time` and `total` in any unit.
    """
    up = 0.3 * total
    if time < up:
        low = peak / 25
        return low + 0.5 * (peak - low) * (1.0 - math.cos(math.pi * time / up))
    return half_cosine(peak, peak / 1e4, (time - up) / (total - up))


def inverse_square_root(step: float, *, peak: float, begin: float = 4000.0) -> float:
    """Rate peak √(T / (T + t)) at step t, with T = `begin` steps."""
    return peak * math.sqrt(begin / (begin + step))
