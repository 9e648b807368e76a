"""The limits of the guards, and what they answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_calc.errors import SimulationError


@dataclass(frozen=True)
class GuardSettings:
    """Limits beyond which a simulation is stopped.

    Attributes
    ----------
    contact : float
        Two atoms nearly touch when they are closer than `contact` times the sum of their covalent
        radii (Cordero et al., Dalton Trans. 2008, 2832, as tabulated by ASE). The default 0.6
        gives 0.58 Å for O–H, 0.37 Å for H–H and 1.58 Å for Cu–Cu, well below what thermal motion
        reaches.
    hot_factor : float
        The temperature has exploded above `hot_factor` times the target temperature ...
    hot_floor : float
        ... or above this many K if that is more (starting structures may release heat).
    temperature_jump : float
        From one check to the next the temperature may rise by this share of the limit above.
    energy_jump : float
        From one check to the next the potential energy may change by `energy_jump` times
        (√N + N / 20), in eV for N atoms: √N as fluctuations do, N for a start that releases heat.
    distance_margin : float
        A pair may come closer than in all training structures by this share of the distance there.
    volume_margin : float
        The volume per atom may leave the range of the training structures, and of the start of the
        run, by this share.
    energy_uncertainty : float or None
        Largest standard deviation of the energy per atom, eV; None does not look at it. It needs a
        calculator that gives ``energy_uncertainty``.
    forces_uncertainty : float or None
        Largest standard deviation of a force, eV/Å; the same for ``forces_uncertainty``.
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
            if value is not None and (not math.isfinite(value) or value <= 0):
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
        return float(self.energy_jump * (math.sqrt(n_atoms) + n_atoms / 20.0))


@dataclass(frozen=True)
class Violation:
    """What a guard found: the cause in plain language, and the atoms concerned."""

    cause: str
    atoms: tuple[int, ...] = ()


class SimulationStopped(SimulationError):
    """A guard stopped the simulation; the last good frame is on disk.

    Attributes
    ----------
    cause : str
        What happened, in plain language.
    step : int
        The step at which it was found.
    atoms : tuple of int
        Indices of the atoms concerned; empty if it concerns them all.
    last_good_step : int or None
        The last step that passed the guards; None if the start did not.
    last_good_frame : Path or None
        The file with that frame (positions, momenta, energy, forces).
    """

    def __init__(
        self,
        cause: str,
        *,
        step: int,
        time_fs: float,
        atoms: Sequence[int] = (),
        last_good_step: int | None = None,
        last_good_frame: Path | None = None,
    ) -> None:
        self.cause = cause
        self.step = step
        self.time_fs = time_fs
        self.atoms = tuple(atoms)
        self.last_good_step = last_good_step
        self.last_good_frame = last_good_frame
        kept = (
            f" The last good frame, step {last_good_step}, is in {last_good_frame}."
            if last_good_frame is not None
            else " No step passed the checks, so that there is no good frame to keep."
        )
        super().__init__(f"stopped at step {step} ({time_fs:.2f} fs): {cause}.{kept}")
