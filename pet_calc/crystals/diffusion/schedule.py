"""Noise schedule: z = α x + σ ε with α² + σ² = 1 and λ = log(α²/σ²) cosine in time.

A. Nichol and P. Dhariwal, ICML 2021, in the form of T. Salimans and J. Ho, ICLR 2022, eq. 19:
λ(t) = −2 log tan(a t + b), with a, b such that λ(0) = `high` and λ(1) = `low`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CosineSchedule:
    """Cosine schedule of log-SNR λ between its values at t = 0 (`high`) and t = 1 (`low`)."""

    high: float = 20.0
    low: float = -20.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and math.isfinite(self.low) and self.low < self.high):
            raise ValueError(f"log-SNR must fall from high to low, got {self.high} to {self.low}")

    def logsnr(self, t: Tensor) -> Tensor:
        """λ at times t in [0, 1]."""
        b = math.atan(math.exp(-0.5 * self.high))
        a = math.atan(math.exp(-0.5 * self.low)) - b
        return -2.0 * torch.log(torch.tan(a * t + b))


def alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """α = sqrt(sigmoid(λ)) and σ = sqrt(sigmoid(−λ))."""
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()


def add_noise(x: Tensor, noise: Tensor, logsnr: Tensor) -> Tensor:
    """Z = α x + σ ε; `logsnr` (B,), the others (B, ...)."""
    alpha, sigma = alpha_sigma(logsnr.view(-1, *[1] * (x.dim() - 1)))
    return alpha * x + sigma * noise
