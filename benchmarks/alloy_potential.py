"""What pet-pbe-alloy does beyond its test frames.

    python benchmarks/alloy_potential.py --model pet-pbe-alloy --ps 1 \
        --out benchmarks/results/alloy_potential.csv --figure potentials/pet-pbe-alloy-v4/dimers.png

Prints and writes the lattice constants of equimolar NbMoTaW (bcc, 54 atoms, species at random) and
of silicon, the range of every pair of elements as a dimer below 60 % of the sum of its covalent
radii (the largest force that pulls the two together, which must not be above zero), and for
Langevin dynamics of NbMoTaW at 300 and 2500 K the mean temperature of the second half, the largest
potential energy above the start, and the shortest distance met.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.data import chemical_symbols
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from pet_calc import PETCalculator
from pet_calc.models.dimers import dimers
from pet_calc.pretrained import load
from pet_calc.training.core.figures import write_figure
from pet_calc.training.potentials.dimer_figure import dimer_figure


def random_alloy(lattice_constant: float, seed: int = 0) -> Atoms:
    """Equimolar NbMoTaW of 54 sites (14, 14, 13, 13), species at random."""
    atoms = bulk("Nb", "bcc", a=lattice_constant, cubic=True) * (3, 3, 3)
    species = (["Nb", "Mo", "Ta", "W"] * 14)[: len(atoms)]
    atoms.symbols = np.random.default_rng(seed).permutation(species)
    return atoms


def lattice_constant(crystal, guess: float, calculator) -> float:
    """Minimum of a fourth-order polynomial through energies within 4 % of a guess, in Å."""
    grid = np.linspace(0.96, 1.04, 9) * guess
    energies = []
    for a in grid:
        atoms = crystal(a)
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy() / len(atoms))
    fit = np.polynomial.Polynomial.fit(grid, energies, 4)
    fine = np.linspace(grid[0], grid[-1], 20001)
    return float(fine[np.argmin(fit(fine))])


def dynamics(atoms: Atoms, temperature: float, ps: float) -> dict[str, float]:
    """Langevin dynamics with steps of 2 fs; see the module's text."""
    generator = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=generator)
    run = Langevin(
        atoms, 2 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=generator
    )
    start = atoms.get_potential_energy()
    temperatures, highest, shortest = [], 0.0, np.inf
    for _ in range(round(ps * 500 / 10)):
        run.run(10)
        temperatures.append(atoms.get_temperature())
        highest = max(highest, (atoms.get_potential_energy() - start) / len(atoms))
        distances = atoms.get_all_distances(mic=True)
        shortest = min(shortest, distances[np.triu_indices(len(atoms), 1)].min())
    return {
        "mean temperature, K": float(np.mean(temperatures[len(temperatures) // 2 :])),
        "highest energy above the start, eV/atom": highest,
        "shortest distance, Å": float(shortest),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pet-pbe-alloy")
    parser.add_argument("--ps", type=float, default=1.0, help="length of each dynamics; 0: none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    calculator = PETCalculator(options.model)
    rows: list[tuple[str, str, float]] = []

    def row(what: str, quantity: str, value: float) -> None:
        rows.append((what, quantity, value))
        print(f"{what}: {quantity} {value:.4g}", flush=True)

    a0 = lattice_constant(random_alloy, 3.24, calculator)
    row("NbMoTaW, bcc", "lattice constant, Å", a0)
    silicon = lattice_constant(lambda a: bulk("Si", "diamond", a=a), 5.47, calculator)
    row("Si, diamond", "lattice constant, Å", silicon)

    found = list(dimers(load(options.model).model, torch.linspace(0.35, 1.6, 51)))
    attracting = []
    for d in found:
        pair = "-".join(chemical_symbols[z] for z in d.numbers)
        pull = d.attraction()
        row(pair, "largest attraction below 60 % of the bond, eV/Å", pull)
        if pull > 0:
            attracting.append(pair)
    if options.figure:
        write_figure(dimer_figure(found), options.figure)
    print("attracting below 60 %:", ", ".join(attracting) or "none")

    for temperature in (300, 2500) if options.ps > 0 else ():
        atoms = random_alloy(a0)
        atoms.calc = calculator
        for quantity, value in dynamics(atoms, temperature, options.ps).items():
            row(f"NbMoTaW, {temperature} K, {options.ps:g} ps", quantity, value)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("system", "quantity", "value"))
        writer.writerows((w, q, f"{v:.5g}") for w, q, v in rows)


if __name__ == "__main__":
    main()
