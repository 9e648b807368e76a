"""Relaxation of disturbed crystals, beside where density-functional theory has them.

    python benchmarks/relaxed_crystals.py --model pet-general-v5 \
        --data DATA/crystals/mp_val.npz.xz --out benchmarks/results/relaxed_crystals.csv

Crystals that were relaxed by DFT are strained (each component normally distributed, 3 %) and
their atoms displaced (0.1 Å in each direction), and then relaxed, cell and atoms, in a batch. Said
of each: how the relaxation ended, the volume relative to DFT's, whether it is still the same
crystal (pymatgen's StructureMatcher with the tolerances of generation benchmarks) and how far its
atoms are off, the space groups before and after (within 0.1 Å), and the error of the formation
energy at DFT's geometry and at the potential's own. The same crystals, disturbed and not relaxed,
are the measure of comparison.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from generators.matching import Matcher
from pet_step import processor

from pet_calc import PETCalculator, __version__
from pet_calc.io.data.crystals import LabeledCrystal, read_crystals
from pet_calc.workflows.relax import RelaxConfig
from pet_calc.workflows.relax.many import relax_all, with_calculator


def disturbed(atoms: Atoms, seed: int, strain: float = 0.03, displacement: float = 0.1) -> Atoms:
    """The crystal away from its minimum."""
    generator = np.random.default_rng(seed)
    found = atoms.copy()
    epsilon = strain * generator.standard_normal((3, 3))
    found.set_cell(atoms.cell @ (np.eye(3) + 0.5 * (epsilon + epsilon.T)), scale_atoms=True)
    found.positions += displacement * generator.standard_normal(atoms.positions.shape)
    found.info = {}
    return found


def space_group(atoms: Atoms) -> int:
    """International number within 0.1 Å; 0 if there is no answer."""
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=0.1)
    return 0 if found is None else int(found.number)


def rows_of(
    chosen: Sequence[LabeledCrystal], calculator: PETCalculator, config: RelaxConfig
) -> list[dict[str, object]]:
    """One row for each crystal."""
    matcher = Matcher()
    starts = [disturbed(c.atoms, seed) for seed, c in enumerate(chosen)]
    outcomes = relax_all(with_calculator(starts, calculator), config)
    rows: list[dict[str, object]] = []
    for crystal, start, outcome in zip(chosen, starts, outcomes, strict=True):
        label, n = crystal.labels["formation_energy"], len(crystal.atoms)
        at_dft = calculator.evaluate(crystal.atoms)["energy"] / n
        row: dict[str, object] = {
            "formula": crystal.atoms.get_chemical_formula(),
            "n_atoms": n,
            "status": outcome.status,
            "steps": outcome.steps,
            "disturbed_volume_ratio": round(start.get_volume() / crystal.atoms.get_volume(), 4),
            "disturbed_rms": matcher.rms(start, crystal.atoms),
            "error_at_dft_meV_atom": round(1e3 * (at_dft - label), 1),
            "space_group_dft": space_group(crystal.atoms),
        }
        if outcome.atoms is not None:
            row |= {
                "volume_ratio": round(outcome.atoms.get_volume() / crystal.atoms.get_volume(), 4),
                "rms": matcher.rms(outcome.atoms, crystal.atoms),
                "error_relaxed_meV_atom": round(1e3 * (outcome.energy / n - label), 1),
                "space_group": space_group(outcome.atoms),
            }
        rows.append(row)
    return rows


def summary(rows: Sequence[dict[str, object]]) -> dict[str, float]:
    """What the rows say together."""

    def column(name: str) -> np.ndarray:
        return np.array([float(r[name]) for r in rows if r.get(name) is not None])  # type: ignore[arg-type]

    n = len(rows)
    volume, before = column("volume_ratio"), column("disturbed_volume_ratio")
    return {
        "crystals": n,
        "converged": sum(r["status"] == "converged" for r in rows) / n,
        "median |V/V_DFT - 1|": float(np.median(np.abs(volume - 1))),
        "mean V/V_DFT - 1": float(np.mean(volume - 1)),
        "within 5 % in volume": float(np.sum(np.abs(volume - 1) < 0.05)) / n,
        "within 5 %, disturbed": float(np.mean(np.abs(before - 1) < 0.05)),
        "same crystal": len(column("rms")) / n,
        "median rms": float(np.median(column("rms"))),
        "median rms, disturbed": float(np.median(column("disturbed_rms"))),
        "space group kept": sum(r.get("space_group") == r["space_group_dft"] for r in rows) / n,
        "energy MAE at DFT's geometry, meV/atom": float(
            np.mean(np.abs(column("error_at_dft_meV_atom")))
        ),
        "energy MAE relaxed, meV/atom": float(np.mean(np.abs(column("error_relaxed_meV_atom")))),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pet-general-v5")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--crystals", type=int, default=60)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    small = [
        c
        for c in read_crystals([options.data], ["formation_energy"])
        if len(c.atoms) <= options.max_atoms
    ]
    chosen = small[:: max(1, len(small) // options.crystals)][: options.crystals]
    calculator = PETCalculator(options.model)
    config = RelaxConfig(cell="free", fmax=options.fmax, steps=options.steps)
    began = time.process_time()
    rows = rows_of(chosen, calculator, config)
    seconds = time.process_time() - began
    for name, value in summary(rows).items():
        print(f"{name:40s} {value:.3f}")
    print(f"{'processor time, s':40s} {seconds:.0f}")
    if options.out is not None:
        same = {"model": options.model, "processor": processor(), "pet_calc": __version__}
        names = list({k: None for r in rows for k in r}) + list(same)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(r | same for r in rows)


if __name__ == "__main__":
    main()
