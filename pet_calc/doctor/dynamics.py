"""A short run at constant energy: the test that all parts pass together or not at all."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from pet_calc.doctor.evaluation import bare
from pet_calc.doctor.finding import Finding, Limit, Verdict, worst
from pet_calc.workflows.guards import Guard, Reading
from pet_calc.workflows.md.velocities import degrees_of_freedom, maxwell_boltzmann
from pet_calc.workflows.statistics import drift

DRIFT = Limit(1.0, 10.0, "meV/atom/ps")
FLUCTUATION = Limit(0.1, 0.3, "of that of the kinetic energy")

#: A run shorter than this in ps is too short to measure a drift.
SHORTEST = 0.02

CHECK = "energy conservation (NVE)"
RULE = f"drift {DRIFT}; fluctuation {FLUCTUATION}"


def default_timestep(atoms: Atoms) -> float:
    """0.5 fs with hydrogen, 1 fs without."""
    return 0.5 if 1 in atoms.numbers else 1.0


def energy_drift(
    atoms: Atoms,
    calculator: Any,
    *,
    rng: np.random.Generator,
    picoseconds: float = 1.0,
    seconds: float = 45.0,
    temperature: float = 300.0,
) -> Finding:
    """Slope and fluctuation of the total energy in a run of Velocity Verlet.

    Parameters
    ----------
    atoms : Atoms
        Where to start; velocities are drawn at `temperature`.
    calculator : ase calculator
    rng : numpy.random.Generator
    picoseconds : float
        Length of the run ...
    seconds : float
        ... or wall time after which it ends, whatever comes first.
    temperature : float
        K.
    """
    timestep = default_timestep(atoms)
    work = bare(atoms)
    work.calc = calculator
    drifts = len(work) > 1
    work.set_momenta(maxwell_boltzmann(work.get_masses(), temperature, rng, remove_drift=drifts))
    n_dof = degrees_of_freedom(work, drift_removed=drifts)
    guard = Guard.at_start(work)
    hottest = guard.config.hottest(temperature, n_dof)
    dynamics = VelocityVerlet(work, timestep=timestep * units.fs)
    potential, kinetic = [], []
    reading = None
    deadline = time.monotonic() + seconds
    steps = round(1e3 * picoseconds / timestep)
    for step in range(steps + 1):
        if step:
            dynamics.run(1)
        energy = float(work.get_potential_energy())
        kinetic.append(float(work.get_kinetic_energy()))
        potential.append(energy)
        now = 2.0 * kinetic[-1] / (n_dof * units.kB)
        forces = work.get_forces(apply_constraint=False)
        found = guard.find(work, energy, forces, temperature=now, hottest=hottest, previous=reading)
        if found is not None:
            return Finding(
                CHECK,
                Verdict.FAIL,
                f"stopped after {step * timestep:.4g} fs: {found.cause}",
                RULE,
                {"steps": step, "atoms": list(found.atoms)},
            )
        reading = Reading(energy, now)
        if time.monotonic() > deadline:
            break
    return _judged(work, potential, kinetic, timestep, picoseconds, seconds)


def _judged(
    atoms: Atoms,
    potential: list[float],
    kinetic: list[float],
    timestep: float,
    picoseconds: float,
    seconds: float,
) -> Finding:
    """What the energies (eV) of a run say; it was to last `picoseconds` within `seconds`."""
    n = len(atoms)
    times = 1e-3 * timestep * np.arange(len(potential), dtype=np.float64)  # ps
    total = np.asarray(1e3 * (np.array(potential) + np.array(kinetic)) / n)  # meV/atom
    slope = drift(times, total)
    residual = float(np.std(total - slope.value * times)) if len(times) > 2 else float("nan")
    ratio = residual / max(1e3 * float(np.std(kinetic)) / n, 1e-12)
    length = float(times[-1])
    values = {
        "drift": slope.value,
        "drift_error": slope.error,
        "fluctuation_ratio": ratio,
        "picoseconds": length,
        "timestep": timestep,
    }
    text = f"drift {slope} meV/atom/ps, fluctuation {ratio:.1e} of kinetic; {length:.3g} ps"
    if length < min(picoseconds, SHORTEST):
        reason = f"{text}, too short to tell; allow more than {seconds:g} s"
        return Finding(CHECK, Verdict.WARN, reason, RULE, values)
    # the part of the slope that its error does not explain
    excess = max(abs(slope.value) - 2.0 * slope.error, 0.0)
    cut = f" of {picoseconds:g} in {seconds:g} s" if length < 0.99 * picoseconds else ""
    verdict = worst([DRIFT.judge(excess), FLUCTUATION.judge(ratio)])
    return Finding(CHECK, verdict, text + cut, RULE, values)
