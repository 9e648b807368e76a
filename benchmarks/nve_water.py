"""Does a run at constant energy conserve it? 64 water molecules with the shipped potential.

    python benchmarks/nve_water.py --out benchmarks/results/nve_water.csv

A box at 1 g/cm³ is equilibrated at 300 K (float32, Langevin), then continued at constant energy
in float64. Printed and written: the drift over the long run with its standard error, in
meV/atom/ns, of the total energy and of the shadow energy, and by how much the fluctuation of the
total energy falls when the step is halved (4 for a second-order integrator on a smooth potential
energy).

Velocity Verlet conserves not the energy E but, to fourth order in the step h, the shadow energy

    E - h²/12 v·dF/dt - h²/24 F·F/m

[Engle, Skeel and Drees, J. Comput. Phys. 206, 432 (2005)]. E wanders about it by an amount of order
h² that changes slowly while energy moves between fast and slow vibrations, which over a few
picoseconds looks like a drift; a drift of the shadow energy is one of the forces.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from pet_calc import PETCalculator, __version__
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.statistics import drift
from pet_calc.workflows.water_box import water_box

Array = NDArray[np.float64]


def nve(atoms: Atoms, timestep: float, picoseconds: float) -> tuple[Array, Array, Array]:
    """A run at constant energy from the velocities that `atoms` carries.

    Returns
    -------
    energy, shadow, temperature : arrays, shape (n_steps - 1,)
        Total and shadow energy in eV, and temperature in K, at all steps but the first and last.
    """
    work = atoms.copy()
    work.calc = atoms.calc
    mass = work.get_masses()[:, None]
    energy, temperature, velocity, force = [], [], [], []

    def record() -> None:
        energy.append(work.get_total_energy())
        temperature.append(work.get_temperature())
        velocity.append(work.get_velocities())
        force.append(work.get_forces())

    integrator = VelocityVerlet(work, timestep * units.fs)
    integrator.attach(record, interval=1)
    integrator.run(round(1000 * picoseconds / timestep))
    h = timestep * units.fs
    v, f = np.array(velocity), np.array(force)
    rate = (f[2:] - f[:-2]) / (2 * h)
    power = (v[1:-1] * rate).sum((1, 2))
    square = (f[1:-1] ** 2 / mass).sum((1, 2))
    total = np.array(energy)[1:-1]
    return total, total - h**2 * (power / 12 + square / 24), np.array(temperature)[1:-1]


def fluctuation(energy: Array) -> float:
    """Standard deviation about the linear trend, in the unit of the energy."""
    time = np.arange(len(energy))
    trend = np.polynomial.Polynomial.fit(time, energy, 1)
    return float((energy - trend(time)).std())


def main() -> None:
    """Run the three stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--equilibrate", type=float, default=2.0, help="ps")
    parser.add_argument("--long", type=float, default=2.0, help="ps at constant energy")
    parser.add_argument("--short", type=float, default=0.5, help="ps for the halved step")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--warm-with", help="a faster potential for all but the last 150 fs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = water_box(options.molecules, seed=1)
        start.calc = PETCalculator(options.warm_with or options.model, dtype="float32")
        warm = run_md(
            start,
            MDConfig(steps=round(1000 * options.equilibrate / 0.5), seed=1, log_interval=50),
            folder / "equilibration",
        ).atoms
        if options.warm_with:
            warm.calc = PETCalculator(options.model, dtype="float32")
            config = MDConfig(steps=300, seed=2, log_interval=50)
            warm = run_md(warm, config, folder / "adaptation").atoms
        warm.calc = PETCalculator(options.model, dtype="float64")
    h, n = options.timestep, len(warm)
    long, shadow, temperature = nve(warm, h, options.long)
    half, half_shadow, _ = nve(warm, h / 2, options.short)
    # the same stretch of time for both steps
    steps = round(1000 * options.short / h) - 1
    time = h * np.arange(len(long)) * 1e-6  # ns
    total_drift, shadow_drift = (drift(time, 1e3 * e / n) for e in (long, shadow))
    row = {
        "molecules": options.molecules,
        "timestep_fs": h,
        "picoseconds": options.long,
        "dtype": "float64",
        "mean_temperature_K": f"{temperature.mean():.1f}",
        "energy_drift_meV_per_atom_per_ns": f"{total_drift.value:.3f}",
        "energy_drift_standard_error": f"{total_drift.error:.3f}",
        "shadow_drift_meV_per_atom_per_ns": f"{shadow_drift.value:.3f}",
        "shadow_drift_standard_error": f"{shadow_drift.error:.3f}",
        "energy_fluctuation_meV_per_atom": f"{1e3 * fluctuation(long[:steps]) / n:.6f}",
        "fluctuation_ratio_on_halving": f"{fluctuation(long[:steps]) / fluctuation(half):.3f}",
        "shadow_fluctuation_meV_per_atom": f"{1e3 * fluctuation(shadow[:steps]) / n:.6f}",
        "shadow_ratio_on_halving": f"{fluctuation(shadow[:steps]) / fluctuation(half_shadow):.3f}",
        "pet_calc": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    for name, value in row.items():
        print(f"{name:32} {value}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, row)
            writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
