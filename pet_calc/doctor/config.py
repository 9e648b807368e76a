"""Settings of an examination."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DoctorConfig:
    """How thoroughly to look.

    Attributes
    ----------
    quick : bool
        Fewer directions and steps, no dynamics.
    picoseconds : float
        Length of the run at constant energy, ps.
    seconds : float
        Maximum wall time of that run, s.
    temperature : float
        Temperature of its initial velocities, K.
    seed : int
        Seed of all random directions, rotations and velocities.
    """

    quick: bool = False
    picoseconds: float = 1.0
    seconds: float = 45.0
    temperature: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("picoseconds", "seconds", "temperature"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")
