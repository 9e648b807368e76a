"""Does a run at constant energy conserve it? 64 water molecules with the shipped potential.

    python benchmarks/nve_water.py --out benchmarks/results/nve_water.csv

A box at 1 g/cm³ is equilibrated at 300 K (float32, Langevin), then continued at constant energy
in float64. Printed and written: the drift of the total energy over the long run with its standard
error, in meV/atom/ns, and by how much the fluctuation of the total energy falls when the step is
halved (4 for a second-order integrator on a smooth potential energy).
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from pet_calc import PETCalculator, __version__
from pet_calc.workflows.md import MDConfig, MDLog, run_md
from pet_calc.workflows.water_box import water_box


def nve(atoms: Atoms, timestep: float, picoseconds: float, folder: Path) -> tuple[MDLog, object]:
    """Total energy along a run at constant energy from the velocities that `atoms` carries."""
    steps = round(1000 * picoseconds / timestep)
    config = MDConfig(
        ensemble="nve",
        timestep=timestep,
        steps=steps,
        initial_velocities="keep",
        log_interval=1,
        frame_interval=steps,
    )
    result = run_md(atoms, config, folder, overwrite=True)
    return result.log, result.drift


def fluctuation(log: MDLog) -> float:
    """Standard deviation of the total energy about its linear trend, in eV."""
    trend = np.polynomial.Polynomial.fit(log.time, log.total, 1)
    return float((log.total - trend(log.time)).std())


def main() -> None:
    """Run the three stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--equilibrate", type=float, default=2.0, help="ps")
    parser.add_argument("--long", type=float, default=2.0, help="ps at constant energy")
    parser.add_argument("--short", type=float, default=0.5, help="ps for the halved step")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = water_box(options.molecules, seed=1)
        start.calc = PETCalculator(options.model, dtype="float32")
        warm = run_md(
            start,
            MDConfig(steps=round(1000 * options.equilibrate / 0.5), seed=1, log_interval=50),
            folder / "equilibration",
        ).atoms
        warm.calc = PETCalculator(options.model, dtype="float64")
        half, _ = nve(warm, options.timestep / 2, options.short, folder / "half")
        long, drift = nve(warm, options.timestep, options.long, folder / "long")
        # the same stretch of time for both steps
        full = MDLog(
            **{
                name: getattr(long, name)[long.time <= half.time[-1] + 1e-9]
                for name in MDLog.__dataclass_fields__
            }
        )
    ratio = fluctuation(full) / fluctuation(half)
    row = {
        "molecules": options.molecules,
        "timestep_fs": options.timestep,
        "picoseconds": options.long,
        "dtype": "float64",
        "mean_temperature_K": f"{long.temperature.mean():.1f}",
        "drift_meV_per_atom_per_ns": f"{1e3 * drift.value:.3f}",
        "drift_standard_error": f"{1e3 * drift.error:.3f}",
        "fluctuation_meV_per_atom": f"{1e3 * fluctuation(full) / len(warm):.6f}",
        "fluctuation_ratio_on_halving": f"{ratio:.3f}",
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
