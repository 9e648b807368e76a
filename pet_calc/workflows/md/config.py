"""What is simulated: one frozen dataclass, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from pet_calc.workflows.guards import GuardSettings

Ensemble = Literal["nve", "nvt-langevin", "nvt-bussi"]
ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)


@dataclass(frozen=True)
class MDConfig:
    """Settings of a molecular dynamics run.

    Attributes
    ----------
    ensemble : {"nve", "nvt-langevin", "nvt-bussi"}
        Velocity Verlet; Langevin dynamics split as BAOAB (Leimkuhler and Matthews, J. Chem. Phys.
        138, 174102 (2013)); stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem.
        Phys. 126, 014101 (2007)).
    timestep : float
        Integration step, fs. 0.5 is safe with hydrogen, 1 to 2 without.
    temperature : float
        Temperature of the thermostat and of the initial velocities, K.
    steps : int
        Number of steps.
    tau : float
        Time constant of the thermostat, fs: 1 / friction for Langevin, the relaxation time of the
        kinetic energy for Bussi. Unused in NVE.
    seed : int
        Seed of the initial velocities and of the thermostat noise. The same seed gives the same
        trajectory, bit for bit, where the calculator is deterministic.
    initial_velocities : {"maxwell-boltzmann", "keep"}
        Draw velocities at `temperature`, or keep those that the structure carries.
    remove_drift : bool
        Remove the momentum of the centre of mass at the start. In NVE and Bussi runs it then stays
        zero, and the temperature counts 3 N - 3 degrees of freedom. Ignored for one atom and for
        structures with constraints.
    frame_interval : int
        Steps between frames of the trajectory.
    log_interval : int
        Steps between rows of the log.
    guards : GuardSettings
        Limits that stop the run; checked at every step.
    """

    ensemble: Ensemble = "nvt-langevin"
    timestep: float = 0.5
    temperature: float = 300.0
    steps: int = 2000
    tau: float = 100.0
    seed: int = 0
    initial_velocities: Literal["maxwell-boltzmann", "keep"] = "maxwell-boltzmann"
    remove_drift: bool = True
    frame_interval: int = 20
    log_interval: int = 5
    guards: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(
                f"`ensemble` must be one of {', '.join(ENSEMBLES)}, got {self.ensemble!r}"
            )
        if self.initial_velocities not in ("maxwell-boltzmann", "keep"):
            raise ValueError(
                "`initial_velocities` must be maxwell-boltzmann or keep, "
                f"got {self.initial_velocities!r}"
            )
        for name, unit in (("timestep", "fs"), ("tau", "fs")):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number of {unit}, got {value}")
        if not math.isfinite(self.temperature) or self.temperature < 0:
            raise ValueError(f"`temperature` must not be negative, got {self.temperature} K")
        if self.ensemble == "nvt-bussi" and self.temperature == 0:
            raise ValueError("`temperature` must be positive with the Bussi thermostat, got 0 K")
        if self.ensemble != "nve" and self.tau < self.timestep:
            raise ValueError(
                f"`tau` ({self.tau} fs) must not be shorter than `timestep` ({self.timestep} fs)"
            )
        if self.steps < 0:
            raise ValueError(f"`steps` must not be negative, got {self.steps}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")
        for name in ("frame_interval", "log_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 step, got {getattr(self, name)}")
