"""DDPM and DDIM sampling with an ε-predicting denoiser, for tensors of any shape.

DDPM: J. Ho et al., NeurIPS 2020; with ``variance`` γ the noise of a step has the log-variance
γ log σ²_big + (1 − γ) log σ²_small between the two bounds there. DDIM: J. Song et al., ICLR 2021.
Classifier-free guidance: J. Ho and T. Salimans, 2022, ε = ε_uncond + w (ε_cond − ε_uncond), so
that w = 1 is the conditioned denoiser alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.schedule import CosineSchedule, alpha_sigma

#: (z, log-SNR of each sample) -> noise of z's shape.
Denoiser = Callable[[Tensor, Tensor], Tensor]


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
