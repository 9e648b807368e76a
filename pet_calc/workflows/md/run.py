"""One run in progress: integrate, swap, guard, record, and keep the state on disk."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter
from numpy.typing import NDArray

from pet_calc.units import AMU_PER_A3_TO_G_PER_CM3
from pet_calc.workflows.guards import Guard, Reading, SimulationStopped, Violation, non_finite
from pet_calc.workflows.md import checkpoint as checkpoints
from pet_calc.workflows.md.checkpoint import CHECKPOINT, Checkpoint
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.ensembles import make_integrator, require_stress
from pet_calc.workflows.md.log import MDSample
from pet_calc.workflows.md.records import Mark, MemoryRecords, Records, require_records
from pet_calc.workflows.md.reports import Reporter
from pet_calc.workflows.md.swaps import CARRIED, SwapMoves
from pet_calc.workflows.md.velocities import degrees_of_freedom, initial_momenta
from pet_calc.workflows.progress import OnProgress

_log = logging.getLogger("pet_calc")

Array = NDArray[np.float64]

LAST_GOOD = "last_good.traj"


@dataclass(frozen=True)
class Observer:
    """A function of the user's that a run calls.

    Attributes
    ----------
    function : callable
        Called as ``function(atoms, sample)`` with the live atoms (results are at hand from the
        calculator; copy what is kept) and the sample of the step.
    every : int
        Steps between calls; step 0 is the first. A continued run calls it for the steps that it
        computes.
    """

    function: Callable[[Atoms, MDSample], object]
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1 step, got {self.every}")


@dataclass(frozen=True, eq=False)
class _Frame:
    """A state that passed the guards; units of ASE."""

    step: int
    numbers: NDArray[np.int64]
    cell: Array
    positions: Array
    momenta: Array
    energy: float
    forces: Array


class Run:
    """One run in progress; :func:`pet_calc.workflows.md.run_md` says how it is used.

    Parameters
    ----------
    atoms : ase.Atoms
        Copied; the calculator is shared.
    config : MDConfig
    guard : Guard
        Judges every step.
    folder : Path or None
        Receives checkpoint and last good frame.
    on_progress, observers
        See `run_md`.

    Attributes
    ----------
    records : Records or MemoryRecords
        To be set before `simulate`.
    """

    records: Records | MemoryRecords

    def __init__(
        self,
        atoms: Atoms,
        config: MDConfig,
        guard: Guard,
        folder: Path | None,
        on_progress: OnProgress | None,
        observers: Sequence[Observer],
    ) -> None:
        self.atoms = work = atoms.copy()
        work.calc = atoms.calc
        self.config = config
        self.guard = guard
        self.folder = folder
        self.structure = checkpoints.structure_digest(atoms)
        self.reporter = None if on_progress is None else Reporter(config, len(atoms), on_progress)
        self.observers = observers
        velocity_seed, noise_seed, swap_seed = np.random.SeedSequence(config.seed).spawn(3)
        self.rng = {
            "noise": np.random.default_rng(noise_seed),
            "swaps": np.random.default_rng(swap_seed),
        }
        removed = config.remove_drift and len(work) > 1 and not work.constraints
        rng = np.random.default_rng(velocity_seed)
        work.set_momenta(initial_momenta(work, config, rng, remove_drift=removed))
        at_rest = removed and config.ensemble != "nvt-langevin"
        self.n_dof = degrees_of_freedom(work, drift_removed=at_rest)
        if config.constant_pressure:
            require_stress(work)
        start_afresh(work.calc)
        self.integrator = make_integrator(work, config, self.rng["noise"], n_dof=self.n_dof)
        self.swaps = SwapMoves(work, self.rng["swaps"]) if config.swap_interval else None
        self.targets = config.targets(0)
        self.good: _Frame | None = None
        self.reading: Reading | None = None
        self.first_step = 0
        self.started = 0.0

    def begin(self) -> None:
        """The first calculation, before any file is touched."""
        energy, forces = self.evaluate()
        if broken := non_finite(self.atoms, energy, forces):
            raise SimulationStopped(broken.cause, step=0, time_fs=0.0, atoms=broken.atoms)
        if self.config.constant_pressure:
            require_stress(self.atoms)

    def simulate(self, first: int, *, fresh: bool) -> None:
        """All steps after `first`, to the end or to what stops them."""
        config = self.config
        self.first_step = first
        if fresh:
            self.check_and_record(0, *self.evaluate())
        else:
            resumed = self.sample(first, *self.evaluate())
            if first == config.steps:
                self.close(resumed)
        self.started = time.perf_counter()
        try:
            for step in range(first + 1, config.steps + 1):
                try:
                    self.advance(step)
                    energy, forces = self.evaluate()
                except Exception as error:  # a calculator may fail in any way; the frame is kept
                    violation = Violation(f"the calculator failed: {error}")
                    raise self.stopped(violation, step) from error
                self.check_and_record(step, energy, forces)
        except KeyboardInterrupt:
            self.keep_last_good()
            raise

    def advance(self, step: int) -> None:
        """Integrate one step towards the targets of its time, then swap if it is the turn."""
        config = self.config
        targets = config.targets(step)
        if targets != self.targets:
            self.targets = targets
            self.integrator.set_target(targets[0], targets[1] * units.GPa)
        self.integrator.step()
        if self.swaps is not None and step % config.swap_interval == 0:
            self.reading = None  # a swap changes the energy at will
            self.swaps.run(config.swap_attempts, units.kB * targets[0])

    def evaluate(self) -> tuple[float, Array]:
        """Energy (eV) and unconstrained forces (n_atoms, 3) (eV/Å); cached by the calculator."""
        energy = float(self.atoms.get_potential_energy())
        return energy, np.array(self.atoms.get_forces(apply_constraint=False))

    def sample(self, step: int, energy: float, forces: Array) -> MDSample:
        """The state as it is logged, if it passes the guards."""
        config, atoms = self.config, self.atoms
        kinetic = float(atoms.get_kinetic_energy())
        temperature = 2.0 * kinetic / (self.n_dof * units.kB)
        target = max(config.temperature, config.temperature_end or 0.0)
        violation = self.guard.find(
            atoms,
            energy,
            forces,
            temperature=temperature,
            hottest=config.guards.hottest(target, self.n_dof),
            previous=self.reading,
        )
        if violation is not None:
            raise self.stopped(violation, step)
        self.reading = Reading(energy, temperature)
        self.good = _Frame(
            step,
            atoms.get_atomic_numbers(),
            atoms.cell.array.copy(),
            atoms.get_positions(),
            atoms.get_momenta(),
            energy,
            forces,
        )
        volume, pressure, density = state_of_matter(atoms, kinetic)
        swapped = self.swaps.heat if self.swaps is not None else 0.0
        return MDSample(
            step=step,
            time=step * config.timestep,
            potential=energy,
            kinetic=kinetic,
            total=energy + kinetic,
            conserved=energy + kinetic - float(self.integrator.heat) - swapped,
            temperature=temperature,
            ns_per_day=self.speed(step),
            volume=volume,
            pressure=pressure,
            density=density,
            swap_acceptance=math.nan if self.swaps is None else self.swaps.acceptance,
        )

    def check_and_record(self, step: int, energy: float, forces: Array) -> None:
        """Judge a state by the guards; record and report it if it passes."""
        config = self.config
        sample = self.sample(step, energy, forces)
        if step % config.frame_interval == 0:
            self.records.write_frame(self.atoms)
        if step % config.log_interval == 0:
            self.records.write_row(sample)
        if self.reporter is not None:
            self.reporter.report(sample)
        for observer in self.observers:
            if step % observer.every == 0:
                observer.function(self.atoms, sample)
        if step > 0 and (step == config.steps or step % config.checkpoint_interval == 0):
            if isinstance(self.records, Records):
                self.save(step, self.records.mark())
            # what the calculator remembers of earlier steps is in no checkpoint
            start_afresh(self.atoms.calc)
        if step == config.steps:
            self.close(sample)

    def close(self, sample: MDSample) -> None:
        """The last frame and row, where no interval ends: a continuation takes them back."""
        config = self.config
        if sample.step % config.frame_interval != 0:
            self.atoms.get_forces()
            self.records.write_frame(self.atoms)
        if sample.step % config.log_interval != 0:
            self.records.write_row(sample)

    def save(self, step: int, mark: Mark) -> None:
        """Write the checkpoint of `step`."""
        assert self.folder is not None
        atoms = self.atoms
        energy, forces = self.evaluate()
        carried = {k: atoms.arrays[k] for k in CARRIED if k in atoms.arrays}
        checkpoints.save_checkpoint(
            self.folder / CHECKPOINT,
            Checkpoint(
                step=step,
                config=checkpoints.config_record(self.config),
                model=checkpoints.model_record(atoms.calc),
                structure=self.structure,
                mark=mark,
                rng={name: rng.bit_generator.state for name, rng in self.rng.items()},
                versions=checkpoints.versions(),
                atoms={"positions": atoms.positions, "cell": atoms.cell.array, **carried},
                integrator=self.integrator.state(),
                swaps={} if self.swaps is None else self.swaps.state(),
                energy=energy,
                forces=forces,
            ),
        )

    def restore(self, saved: Checkpoint) -> None:
        """Take the state of a checkpoint, if the calculator is the one that it was made with."""
        assert self.folder is not None
        require_records(self.folder, saved.mark)
        atoms = self.atoms
        atoms.set_cell(saved.atoms["cell"], scale_atoms=False)
        for name, array in saved.atoms.items():
            if name != "cell":
                atoms.arrays[name] = np.array(array)
        for name, rng in self.rng.items():
            rng.bit_generator.state = saved.rng[name]
        self.targets = self.config.targets(saved.step)
        self.integrator.set_target(self.targets[0], self.targets[1] * units.GPa)
        self.integrator.set_state(saved.integrator)
        if self.swaps is not None:
            self.swaps.set_state(saved.swaps)
        start_afresh(atoms.calc)
        checkpoints.require_same_model(saved, atoms.calc, *self.evaluate())
        if saved.versions != (now := checkpoints.versions()):
            _log.warning(
                "the run began with %s and goes on with %s, thus not bit for bit",
                saved.versions,
                now,
            )

    def speed(self, step: int) -> float:
        """Simulated ns per day of wall time so far."""
        if step == self.first_step:
            return math.nan
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        steps = step - self.first_step
        return steps * self.config.timestep * 1e-6 * 86400.0 / elapsed

    def stopped(self, violation: Violation, step: int) -> SimulationStopped:
        """The error for a violation, after the last good frame has been written."""
        return SimulationStopped(
            violation.cause,
            step=step,
            time_fs=step * self.config.timestep,
            atoms=violation.atoms,
            last_good_step=None if self.good is None else self.good.step,
            last_good=self.last_good(),
            last_good_frame=self.keep_last_good(),
        )

    def last_good(self) -> Atoms | None:
        """The last frame that passed the guards, with its energy and forces."""
        if self.good is None:
            return None
        frame = self.atoms.copy()
        frame.numbers = self.good.numbers
        frame.set_cell(self.good.cell, scale_atoms=False)
        frame.set_positions(self.good.positions, apply_constraint=False)
        frame.set_momenta(self.good.momenta, apply_constraint=False)
        frame.calc = SinglePointCalculator(frame, energy=self.good.energy, forces=self.good.forces)
        frame.info["step"] = self.good.step
        return frame

    def keep_last_good(self) -> Path | None:
        """Write that frame if the run has a folder; in full precision, unlike extxyz."""
        frame = self.last_good()
        if frame is None or self.folder is None:
            return None
        path = self.folder / LAST_GOOD
        with TrajectoryWriter(path, "w") as file:
            file.write(frame)
        return path


def start_afresh(calculator: Any) -> None:
    """Make a calculator forget what it remembers of structures, in its parts as well.

    ASE's calculators keep neighbor lists whose order depends on the steps before, and with it the
    rounding of their sums.
    """
    parts = getattr(getattr(calculator, "mixer", None), "calcs", ())
    for each in (*parts, calculator):
        if hasattr(each, "reset"):
            each.reset()


def state_of_matter(atoms: Atoms, kinetic: float) -> tuple[float, float, float]:
    """Volume (Å³), pressure (GPa) and density (g/cm³) of atoms with a kinetic energy in eV.

    NaN where they have no meaning; the stress is taken if the calculator has it at hand.
    """
    if not atoms.pbc.all():
        return math.nan, math.nan, math.nan
    volume = float(atoms.get_volume())
    density = float(atoms.get_masses().sum()) / volume * AMU_PER_A3_TO_G_PER_CM3
    stress = getattr(atoms.calc, "results", {}).get("stress")
    if stress is None:
        return volume, math.nan, density
    pressure = 2.0 * kinetic / (3.0 * volume) - float(np.sum(stress[:3])) / 3.0
    return volume, pressure / units.GPa, density
