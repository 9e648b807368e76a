"""The loop: integrate, guard, record."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError
from pet_calc.io.outputs import claim_folder, clear_folder
from pet_calc.workflows.guards import (
    SimulationStopped,
    Violation,
    check_structure,
    find_violation,
    near_contact,
    non_finite,
)
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.integrators import Integrator, make_integrator
from pet_calc.workflows.md.log import (
    CSV_COLUMNS,
    Estimate,
    MDLog,
    MDSample,
    block_mean,
    csv_row,
    drift_per_atom,
)
from pet_calc.workflows.md.velocities import (
    degrees_of_freedom,
    maxwell_boltzmann,
    without_drift,
)

Array = NDArray[np.float64]

TRAJECTORY, LOG, LAST_GOOD = "trajectory.traj", "log.csv", "last_good.traj"
OUTPUT_FILES = (TRAJECTORY, LOG, LAST_GOOD)


@dataclass(frozen=True, eq=False)
class MDResult:
    """What a finished run leaves.

    Attributes
    ----------
    config : MDConfig
        Settings of the run.
    atoms : ase.Atoms
        The last frame, with the calculator.
    log : MDLog
        Samples, also in `log_file`.
    n_dof : int
        Degrees of freedom that the temperature counts.
    mean_temperature : Estimate
        K, with the standard error of block means.
    drift : Estimate
        Slope of the conserved energy, meV/atom/ps, with its standard error.
    ns_per_day : float
        Speed over the whole run, file writing included; NaN without steps.
    trajectory_file, log_file : Path
        ASE trajectory (positions, momenta, energies, forces) and CSV.
    """

    config: MDConfig
    atoms: Atoms
    log: MDLog
    n_dof: int
    mean_temperature: Estimate
    drift: Estimate
    ns_per_day: float
    trajectory_file: Path
    log_file: Path


@dataclass(frozen=True, eq=False)
class _Frame:
    """A state that passed the guards; units of ASE."""

    step: int
    positions: Array
    momenta: Array
    energy: float
    forces: Array


def run_md(
    atoms: Atoms,
    config: MDConfig,
    folder: Path | str,
    *,
    overwrite: bool = False,
    on_step: Callable[[MDSample], None] | None = None,
) -> MDResult:
    """Run molecular dynamics and write its trajectory and log.

    The structure given is not changed: the run works on a copy that shares the calculator. Every
    step is checked by the guards (finite numbers, minimum distance, temperature).

    Parameters
    ----------
    atoms : ase.Atoms
        Structure with a calculator attached.
    config : MDConfig
        Settings.
    folder : Path or str
        Receives ``trajectory.traj`` (every `frame_interval` steps, and the last one) and
        ``log.csv`` (every `log_interval` steps, and the last one); ``last_good.traj`` if the run is
        stopped. It is created and tried for writing before the calculator is called.
    overwrite : bool
        Replace these files if they exist; otherwise they are an error.
    on_step : callable, optional
        Called with the sample of every step, step 0 included; see :class:`MDProgress`.

    Raises
    ------
    InvalidStructureError
        Zero atoms, non-finite positions, zero cell with periodicity, or touching atoms.
    OutputError
        The folder is not writable or holds an earlier run.
    SimulationStopped
        A guard fired, or the calculator failed, after the start.
    """
    if atoms.calc is None:
        raise ValueError("`atoms` must carry a calculator; set atoms.calc before run_md")
    check_structure(atoms)
    if touching := near_contact(atoms, config.guards.contact):
        raise InvalidStructureError(f"the starting structure cannot be used: {touching.cause}")
    folder = claim_folder(folder, OUTPUT_FILES, overwrite=overwrite)

    work = atoms.copy()
    work.calc = atoms.calc
    velocity_seed, noise_seed = np.random.SeedSequence(config.seed).spawn(2)
    removed = config.remove_drift and len(work) > 1 and not work.constraints
    if config.initial_velocities == "maxwell-boltzmann":
        momenta = maxwell_boltzmann(
            work.get_masses(),
            config.temperature,
            np.random.default_rng(velocity_seed),
            remove_drift=removed,
        )
    else:
        momenta = work.get_momenta()
        if removed:
            momenta = without_drift(momenta, work.get_masses())
    work.set_momenta(momenta)
    n_dof = degrees_of_freedom(work, drift_removed=removed and config.ensemble != "nvt-langevin")
    integrator = make_integrator(work, config, np.random.default_rng(noise_seed), n_dof=n_dof)

    # the first calculation comes before the files: one that fails leaves earlier results in place
    energy, forces = work.get_potential_energy(), work.get_forces(apply_constraint=False)
    if broken := non_finite(work, energy, forces):
        raise SimulationStopped(broken.cause, step=0, time_fs=0.0, atoms=broken.atoms)
    clear_folder(folder, OUTPUT_FILES)

    with ExitStack() as stack:
        trajectory = stack.enter_context(TrajectoryWriter(folder / TRAJECTORY, "w", work))
        log_file = stack.enter_context((folder / LOG).open("w", newline="", encoding="utf-8"))
        run = _Run(work, config, integrator, n_dof, folder, trajectory, log_file, on_step)
        run.simulate()

    log = MDLog.from_samples(run.samples)
    return MDResult(
        config=config,
        atoms=work,
        log=log,
        n_dof=n_dof,
        mean_temperature=block_mean(log.temperature),
        drift=drift_per_atom(log, len(work)),
        ns_per_day=float(log.ns_per_day[-1]),
        trajectory_file=folder / TRAJECTORY,
        log_file=folder / LOG,
    )


class _Run:
    """One run in progress, between the opening and the closing of its files."""

    def __init__(
        self,
        atoms: Atoms,
        config: MDConfig,
        integrator: Integrator,
        n_dof: int,
        folder: Path,
        trajectory: TrajectoryWriter,
        log_file: IO[str],
        on_step: Callable[[MDSample], None] | None,
    ) -> None:
        self.atoms = atoms
        self.config = config
        self.integrator = integrator
        self.n_dof = n_dof
        self.folder = folder
        self.trajectory = trajectory
        self.log_file = log_file
        self.writer = csv.writer(log_file, lineterminator="\n")
        self.on_step = on_step
        self.samples: list[MDSample] = []
        self.good: _Frame | None = None
        self.started = 0.0

    def simulate(self) -> None:
        """All steps, from the start to the end or to what stops them."""
        self.writer.writerow(CSV_COLUMNS)
        self.check_and_record(0, *self.evaluate())
        self.started = time.perf_counter()
        try:
            for step in range(1, self.config.steps + 1):
                try:
                    self.integrator.step()
                    energy, forces = self.evaluate()
                except Exception as error:  # a calculator may fail in any way; the frame is kept
                    violation = Violation(f"the calculator failed: {error}")
                    raise self.stopped(violation, step) from error
                self.check_and_record(step, energy, forces)
        except KeyboardInterrupt:
            self.keep_last_good()
            raise

    def evaluate(self) -> tuple[float, Array]:
        """Energy (eV) and unconstrained forces (n_atoms, 3) (eV/Å); cached by the calculator."""
        energy = float(self.atoms.get_potential_energy())
        return energy, np.array(self.atoms.get_forces(apply_constraint=False))

    def check_and_record(self, step: int, energy: float, forces: Array) -> None:
        """Judge a state by the guards; keep, log and report it if it passes."""
        config, atoms = self.config, self.atoms
        kinetic = float(atoms.get_kinetic_energy())
        temperature = 2.0 * kinetic / (self.n_dof * units.kB)
        violation = find_violation(
            atoms,
            energy,
            forces,
            temperature,
            hottest=config.guards.hottest(config.temperature, self.n_dof),
            contact=config.guards.contact,
        )
        if violation is not None:
            raise self.stopped(violation, step)
        self.good = _Frame(step, atoms.get_positions(), atoms.get_momenta(), energy, forces)
        sample = MDSample(
            step=step,
            time=step * config.timestep,
            potential=energy,
            kinetic=kinetic,
            total=energy + kinetic,
            conserved=energy + kinetic - float(self.integrator.heat),
            temperature=temperature,
            ns_per_day=self.speed(step),
        )
        last = step == config.steps
        if last or step % config.frame_interval == 0:
            self.trajectory.write(atoms)
        if last or step % config.log_interval == 0:
            self.samples.append(sample)
            self.writer.writerow(csv_row(sample))
            self.log_file.flush()  # the log can be read while the run goes on
        if self.on_step is not None:
            self.on_step(sample)

    def speed(self, step: int) -> float:
        """Simulated ns per day of wall time so far."""
        if step == 0:
            return float("nan")
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        return step * self.config.timestep * 1e-6 * 86400.0 / elapsed

    def stopped(self, violation: Violation, step: int) -> SimulationStopped:
        """The error for a violation, after the last good frame has been written."""
        return SimulationStopped(
            violation.cause,
            step=step,
            time_fs=step * self.config.timestep,
            atoms=violation.atoms,
            last_good_step=None if self.good is None else self.good.step,
            last_good_frame=self.keep_last_good(),
        )

    def keep_last_good(self) -> Path | None:
        """Write the last frame that passed the guards; in full precision, unlike extxyz."""
        if self.good is None:
            return None
        frame = self.atoms.copy()
        frame.set_positions(self.good.positions, apply_constraint=False)
        frame.set_momenta(self.good.momenta, apply_constraint=False)
        frame.calc = SinglePointCalculator(frame, energy=self.good.energy, forces=self.good.forces)
        frame.info["step"] = self.good.step
        path = self.folder / LAST_GOOD
        with TrajectoryWriter(path, "w") as file:
            file.write(frame)
        return path
