"""Limits of the guards."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GuardConfig:
    """Limits beyond which a simulation is stopped.

    Attributes
    ----------
    contact : float
        Smallest distance of two atoms, as a part of the sum of their covalent radii (Cordero et
        al., Dalton Trans. 2008, 2832, as tabulated by ASE). The default 0.6 gives 0.58 Å for O–H,
        0.37 Å for H–H and 1.58 Å for Cu–Cu, well below what thermal motion reaches.
    hot_factor : float
        Largest temperature, as a multiple of the target temperature ...
    hot_floor : float
        ... or this many K if that is more (starting structures may release heat).
    temperature_jump : float
        Largest rise of the temperature between two checks, as a part of the limit above.
    energy_jump : float
        Largest change of the potential energy between two checks, eV per (√N + N / 20) for N
        atoms: √N as fluctuations do, N for a start that releases heat.
    distance_margin : float
        Part by which a pair may come closer than in all training structures.
    volume_margin : float
        Part by which the volume per atom may leave the range of the training structures and of the
        start of the run.
    energy_uncertainty : float, optional
        Largest standard deviation of the energy per atom, eV. It needs a calculator that gives
        ``energy_uncertainty``; unchecked by default.
    forces_uncertainty : float, optional
        Largest standard deviation of a force, eV/Å. It needs a calculator that gives
        ``forces_uncertainty``; unchecked by default.
    """

    contact: float = 0.6
    hot_factor: float = 5.0
    hot_floor: float = 1500.0
    temperature_jump: float = 0.5
    energy_jump: float = 1.0
    distance_margin: float = 0.2
    volume_margin: float = 0.2
    energy_uncertainty: float | None = None
    forces_uncertainty: float | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        for name in ("distance_margin", "volume_margin"):
            if getattr(self, name) >= 1.0:
                raise ValueError(f"`{name}` is a share below 1, got {getattr(self, name)}")

    def hottest(self, target: float, n_dof: int) -> float:
        """Temperature in K above which a run at `target` K has exploded.

        The kinetic temperature of few degrees of freedom fluctuates by sqrt(2 / n_dof) of its
        mean; six of these are allowed on top, so that a single atom does not trip the guard.
        """
        limit = max(self.hot_factor * target, self.hot_floor)
        return float(limit * (1.0 + 6.0 * math.sqrt(2.0 / max(n_dof, 1))))

    def largest_energy_change(self, n_atoms: int) -> float:
        """Change of the potential energy in eV that is allowed between two checks."""
        return self.energy_jump * (math.sqrt(n_atoms) + n_atoms / 20.0)
