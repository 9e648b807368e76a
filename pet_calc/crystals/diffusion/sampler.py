"""DDPM and DDIM sampling with an ε-predicting denoiser, for tensors of any shape.

DDPM: J. Ho et al., NeurIPS 2020; with ``variance`` γ the noise of a step has the log-variance
γ log σ²_big + (1 − γ) log σ²_small between the two bounds there. DDIM: J. Song et al., ICLR 2021.
Classifier-free guidance: J. Ho and T. Salimans, 2022, ε = ε_uncond + w (ε_cond − ε_uncond), so
that w = 1 is the conditioned denoiser alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pet_calc.crystals.diffusion.schedule import CosineSchedule, alpha_sigma

#: (z, log-SNR of each sample) -> noise of z's shape.
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Attributes
    ----------
    method : {"ddpm", "ddim"}
        Stochastic or deterministic.
    steps : int
        Evaluations of the denoiser (twice as many with guidance).
    variance : float
        γ of the DDPM step, 0 (smallest noise) to 1.
    guidance : float
        w of classifier-free guidance.
    """

    method: Literal["ddpm", "ddim"] = "ddpm"
    steps: int = 100
    variance: float = 0.1
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("ddpm", "ddim"):
            raise ValueError(f"`method` must be ddpm or ddim, got {self.method!r}")
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}")
        if not 0 <= self.variance <= 1:
            raise ValueError(f"`variance` must be between 0 and 1, got {self.variance}")


def guided(conditioned: Denoiser, unconditioned: Denoiser, weight: float) -> Denoiser:
    """The denoiser of classifier-free guidance with weight w."""
    if weight == 1.0:
        return conditioned

    def denoise(z: Tensor, logsnr: Tensor) -> Tensor:
        free = unconditioned(z, logsnr)
        return free + weight * (conditioned(z, logsnr) - free)

    return denoise


def sample(
    denoise: Denoiser,
    start: Tensor,
    schedule: CosineSchedule,
    config: SamplerConfig,
    *,
    bounds: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoise from t = 1 to t = 0.

    Parameters
    ----------
    denoise : callable
        ε(z, λ).
    start : Tensor, (B, ...)
        Standard normal noise.
    schedule : CosineSchedule
    config : SamplerConfig
    bounds : pair of Tensors, optional
        Lowest and highest value of the clean data, broadcast to `start`; each estimate is kept
        between them.
    generator : torch.Generator, optional
        Of the noise of DDPM's steps.

    Returns
    -------
    Tensor, (B, ...)
        The estimate of the clean data after the last step.
    """
    times = torch.linspace(1.0, 0.0, config.steps + 1, dtype=torch.float64)
    ladder = schedule.logsnr(times).to(start)
    z = start
    for k in range(config.steps):
        now, then = ladder[k], ladder[k + 1]
        alpha, sigma = alpha_sigma(now)
        noise = denoise(z, now.expand(len(z)))
        clean = (z - sigma * noise) / alpha
        if bounds is not None:
            clean = clean.clamp(*bounds)
        if k == config.steps - 1:
            return clean
        next_alpha, next_sigma = alpha_sigma(then)
        if config.method == "ddim":
            z = next_alpha * clean + next_sigma * (z - alpha * clean) / sigma
            continue
        # posterior q(z_then | z_now, clean); expm1 keeps 1 − e^(λ_now − λ_then) exact
        rest = -torch.expm1(now - then)
        mean = (alpha / next_alpha) * next_sigma**2 / sigma**2 * z + next_alpha * rest * clean
        small, big = next_sigma**2 * rest, sigma**2 * rest
        spread = torch.exp(0.5 * torch.lerp(small.log(), big.log(), config.variance))
        fresh = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
        z = mean + spread * fresh
    return z
