"""How crystals are sampled by diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Attributes
    ----------
    method : {"ddpm", "ddim"}
        Denoising, stochastic (ddpm) or deterministic (ddim).
    steps : int
        Number of denoising steps (twice as many evaluations with guidance).
    variance : float
        γ of the DDPM step, 0 (smallest noise) to 1.
    guidance : float
        Weight of the composition in a generator, w of classifier-free guidance; 1: no guidance.
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
