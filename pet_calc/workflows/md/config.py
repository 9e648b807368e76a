"""Settings of molecular dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from pet_calc.workflows.guards.config import GuardConfig

Ensemble = Literal[
    "nve", "nvt-langevin", "nvt-bussi", "nvt-nhc", "npt-mtk-iso", "npt-mtk-full", "npt-scr"
]
ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)


@dataclass(frozen=True)
class MDConfig:
    """Settings of a molecular dynamics run.

    Attributes
    ----------
    ensemble : str
        Ensemble with its thermostat and barostat. What each does and where it comes from stands in
        :mod:`pet_calc.workflows.md.integrators` and
        :mod:`pet_calc.workflows.md.barostats`.
    timestep : float
        Integration step, fs; 0.5 is safe with hydrogen, 1 to 2 without.
    temperature : float
        Temperature of the thermostat and of the initial velocities, K.
    temperature_end : float, optional
        Temperature that the thermostat moves to linearly, K.
    pressure : float
        Pressure of the barostat, GPa; compression is positive, 1 bar is 1e-4 GPa.
    pressure_end : float, optional
        Pressure that the barostat moves to linearly, GPa.
    ramp_steps : int, optional
        Steps over which temperature and pressure move, by default all; the end values hold
        afterwards.
    steps : int
        Number of steps.
    tau : float
        Time constant of the thermostat, fs (Langevin: 1 / friction). For Bussi and npt-scr it is
        the relaxation time of the kinetic energy, for chains the tau of their masses
        Q = n k_B T tau², which oscillate with a period of about 2 pi tau. Unused in NVE.
    pressure_tau : float
        Time constant of the barostat, fs. For npt-scr it is the relaxation time of the volume, for
        MTK the tau of the cell's mass.
    compressibility : float
        Estimate of the isothermal compressibility for npt-scr, 1/GPa: water 0.46, copper 0.007. It
        turns `pressure_tau` into a speed; an error of a factor changes the relaxation time by that
        factor and nothing else.
    swap_interval : int
        Steps between rounds of Monte Carlo swaps of two atoms of different species; 0 for none.
    swap_attempts : int
        Number of swaps that each round tries; each costs one energy.
    seed : int
        Seed of a built system, the initial velocities, the noise and the swaps. The same seed
        gives the same trajectory, bit for bit, where the calculator is deterministic.
    initial_velocities : {"maxwell-boltzmann", "keep"}
        Draw velocities at `temperature`, or keep those that the structure carries.
    remove_drift : bool
        Remove the momentum of the center of mass at the start. Except in Langevin runs it then
        stays zero, and the temperature counts 3 N - 3 degrees of freedom. Ignored for one atom and
        for structures with constraints.
    frame_interval : int
        Steps between frames of the trajectory.
    log_interval : int
        Steps between rows of the log.
    checkpoint_interval : int
        Steps between checkpoints. The calculator starts afresh at each, so that a run that is
        continued there and one that was never interrupted compute the same.
    guards : GuardConfig
        Limits that stop the run, such as forces_uncertainty=0.5 (eV/Å) or contact=0.5 (of the
        covalent radii), see docs/guards.md; checked at every step.
    """

    ensemble: Ensemble = "nvt-langevin"
    timestep: float = 0.5
    temperature: float = 300.0
    temperature_end: float | None = None
    pressure: float = 1e-4
    pressure_end: float | None = None
    ramp_steps: int | None = None
    steps: int = 2000
    tau: float = 100.0
    pressure_tau: float = 1000.0
    compressibility: float = 0.05
    swap_interval: int = 0
    swap_attempts: int = 1
    seed: int = 0
    initial_velocities: Literal["maxwell-boltzmann", "keep"] = "maxwell-boltzmann"
    remove_drift: bool = True
    frame_interval: int = field(default=20, metadata={"panel": "Output"})
    log_interval: int = field(default=5, metadata={"panel": "Output"})
    checkpoint_interval: int = field(default=1000, metadata={"panel": "Output"})
    guards: GuardConfig = field(default_factory=GuardConfig, metadata={"words": "guard"})

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
        self._check_numbers()
        self._check_targets()
        self._check_ensemble()

    def _check_numbers(self) -> None:
        for name, unit in (
            ("timestep", "fs"),
            ("tau", "fs"),
            ("pressure_tau", "fs"),
            ("compressibility", "1/GPa"),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number of {unit}, got {value}")
        for name in ("steps", "seed", "swap_interval"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        for name in ("frame_interval", "log_interval", "checkpoint_interval", "swap_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.ramp_steps is not None and self.ramp_steps < 1:
            raise ValueError(f"`ramp_steps` must be at least 1, got {self.ramp_steps}")

    def _check_targets(self) -> None:
        for name in ("temperature", "temperature_end"):
            value = getattr(self, name)
            if value is None:
                continue
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"`{name}` must not be negative, got {value} K")
            if value == 0 and self.ensemble not in ("nve", "nvt-langevin"):
                kind = "Bussi thermostat" if self.ensemble == "nvt-bussi" else self.ensemble
                raise ValueError(f"`{name}` must be positive with the {kind}, got 0 K")
        for name in ("pressure", "pressure_end"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"`{name}` must be a number of GPa, got {value}")

    def _check_ensemble(self) -> None:
        if self.ensemble == "nve":
            if self.temperature_end is not None:
                raise ValueError("`temperature_end` needs a thermostat, but nve has none")
            if self.swap_interval:
                raise ValueError(
                    "swap moves hold a temperature, but nve has none; choose a thermostat"
                )
        elif self.tau < self.timestep:
            raise ValueError(
                f"`tau` ({self.tau} fs) must not be shorter than `timestep` ({self.timestep} fs)"
            )
        if self.constant_pressure:
            if self.pressure_tau < 20 * self.timestep:
                raise ValueError(
                    f"`pressure_tau` ({self.pressure_tau} fs) must be at least 20 timesteps "
                    f"({20 * self.timestep} fs)"
                )
        elif self.pressure_end is not None:
            raise ValueError(f"`pressure_end` needs a barostat, but {self.ensemble} has none")

    @property
    def constant_pressure(self) -> bool:
        """Whether a barostat changes the cell."""
        return self.ensemble.startswith("npt")

    def targets(self, step: int) -> tuple[float, float]:
        """Temperature (K) and pressure (GPa) that hold during the integration of `step`."""
        ramp = self.steps if self.ramp_steps is None else self.ramp_steps
        part = 1.0 if step >= ramp else step / ramp

        def between(start: float, end: float | None) -> float:
            return start if end is None else start + part * (end - start)

        return (
            between(self.temperature, self.temperature_end),
            between(self.pressure, self.pressure_end),
        )
