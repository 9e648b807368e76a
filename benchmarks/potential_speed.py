"""How fast are the shipped potentials? Atoms times steps per second of one core.

    python benchmarks/potential_speed.py --out benchmarks/results/potential_speed.csv

Energy, forces and stress in float32 through the ASE calculator, neighbor list included, on a
structure that each potential is for; one thread, processor time, best of `--repeats`. Beside it a
product of matrices in the same process, by whose rate machines can be compared.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from pet_step import cpu_time, processor
from rich.console import Console
from rich.table import Table

from pet_calc import __version__, load_calculator
from pet_calc.pretrained import PotentialEntry, list_potentials
from pet_calc.workflows.water_box import water_box


def structure(entry: PotentialEntry) -> tuple[str, Atoms]:
    """Liquid water, an alloy at random of up to four of the metals, an oxide, or a perovskite."""
    if len(entry.elements) > 20:
        sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
        atoms = Atoms("SrTiO3", scaled_positions=sites, cell=[3.94] * 3, pbc=True).repeat(2)
        atoms.rattle(0.05, seed=1)
        return "40 atoms of SrTiO3", atoms
    if {"H", "O"} <= set(entry.elements):
        return "64 water molecules", water_box(64, seed=0)
    if set(entry.elements) == {"Ag", "Au"}:
        atoms = bulk("Ag", "fcc", a=4.15, cubic=True).repeat(3)
        atoms.symbols = np.random.default_rng(0).permutation(["Ag", "Au"] * 54)
        atoms.rattle(0.05, seed=1)
        return "108 atoms of fcc AgAu", atoms
    if set(entry.elements) == {"Mg", "O"}:
        atoms = bulk("MgO", "rocksalt", a=4.25, cubic=True).repeat(2)
        atoms.rattle(0.05, seed=1)
        return "64 atoms of rocksalt MgO", atoms
    atoms = bulk("Mo", "bcc", a=3.24, cubic=True).repeat(4)
    atoms.symbols = np.random.default_rng(0).permutation(["Nb", "Mo", "Ta", "W"] * 32)
    atoms.rattle(0.05, seed=1)
    return "128 atoms of bcc NbMoTaW", atoms


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of processor time of the fastest call."""
    return min(cpu_time(function) for _ in range(repeats))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--only", nargs="+", help="names; rows of others in OUT are kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    a = torch.rand(4096, 128)
    b = torch.rand(128, 512)
    product = best_time(lambda: torch.mm(a, b), 50)
    rate = 2 * a.numel() * b.shape[1] / product / 1e9
    rows = []
    for entry in list_potentials():
        if entry.kind != "energy" or (options.only and entry.name not in options.only):
            continue
        name, atoms = structure(entry)
        calculator = load_calculator(entry.name)

        def step(calculator=calculator, atoms=atoms) -> None:  # type: ignore[no-untyped-def]
            calculator.results.clear()
            calculator.evaluate(atoms)

        step()
        seconds = best_time(step, options.repeats)
        rows.append({
            "potential": entry.name,
            "structure": name,
            "n_atoms": len(atoms),
            "seconds": round(seconds, 4),
            "atoms_steps_per_s": round(len(atoms) / seconds),
            "mm_gflops_per_s": round(rate, 1),
            "dtype": "float32",
            "threads": 1,
            "load_average": round(os.getloadavg()[0], 1),
            "processor": processor(),
            "pet_calc": __version__,
            "torch": torch.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        })  # fmt: skip
    table = Table(title="energy, forces and stress, one core")
    for column in ("potential", "structure", "seconds", "atoms_steps_per_s"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            *(str(row[c]) for c in ("potential", "structure", "seconds", "atoms_steps_per_s"))
        )
    Console().print(table)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.only and options.out.is_file():
            with options.out.open(newline="") as file:
                others = [r for r in csv.DictReader(file) if r["potential"] not in options.only]
            rows = others + rows
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
