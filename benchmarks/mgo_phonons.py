"""Phonons of magnesium oxide beside DFT, and where the longitudinal branch lies.

    PET_CALC_DATA=DATA python benchmarks/mgo_phonons.py --out benchmarks/results/mgo_phonons.csv

DATA/phonons/reference_THz.json has the frequencies from DFT forces at Γ, X and L, at a = 4.2556 Å,
without the non-analytical term. The potential is asked at that lattice constant and at its own. A
third run adds Born charges and dielectric constant (given: `--charge`, `--epsilon`), which split
the optical modes at Γ; the potential itself knows nothing of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
from pathlib import Path

import numpy as np
from ase.build import bulk

from pet_calc import PETCalculator, __version__
from pet_calc.workflows.phonons import BornCharges, PhononConfig, phonons

LATTICE_CONSTANT = 4.2556
POINTS = {"Γ": "G", "X": "X", "L": "L"}


def main() -> None:
    """Compute, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pet-mgo", help="a potential that covers Mg and O")
    parser.add_argument("--data", type=Path, default=os.environ.get("PET_CALC_DATA"))
    parser.add_argument("--charge", type=float, default=1.96, help="Born charge of Mg, e")
    parser.add_argument("--epsilon", type=float, default=3.1, help="dielectric constant")
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parser.parse_args()
    if options.data is None:
        parser.error("set PET_CALC_DATA or --data to the folder that holds phonons/")
    tables = json.loads(
        (Path(options.data) / "phonons" / "reference_THz.json").read_text(encoding="utf-8")
    )
    (dft,) = (v for k, v in tables.items() if k.startswith("MgO"))
    atoms = bulk("MgO", "rocksalt", a=LATTICE_CONSTANT)
    atoms.calc = PETCalculator(options.model, dtype="float64")
    born = BornCharges(
        np.array([np.eye(3) * options.charge, -np.eye(3) * options.charge]),
        np.eye(3) * options.epsilon,
    )
    config = {"min_length": 12.0, "mesh": 40.0, "displacements": "full"}
    rows = []
    for name, relax, charges in (("DFT", False, None), ("own", True, None), ("DFT", False, born)):
        result = phonons(atoms, PhononConfig(**config, relax=relax), born=charges)
        own = (4 * result.primitive.atoms.get_volume()) ** (1 / 3)
        print(f"\na = {own:.4f} Å ({name}){', with Born charges' if charges else ''}")
        errors = []
        for point in result.spectrum.points:
            if point.label not in POINTS:
                continue
            reference = None if charges else np.array(dft[POINTS[point.label]])
            found = point.frequencies + 0.0
            print(point.label, " ".join(f"{x:7.2f}" for x in found), "potential")
            if reference is not None:
                print(point.label, " ".join(f"{x:7.2f}" for x in reference + 0.0), "DFT")
                errors += (found - reference).tolist()
            rows += [
                {
                    "model": atoms.calc.todict()["model"],
                    "lattice": name,
                    "lattice_constant_A": f"{own:.5f}",
                    "born_charge": options.charge if charges else "",
                    "epsilon": options.epsilon if charges else "",
                    "point": point.label,
                    "band": k + 1,
                    "dft_THz": "" if reference is None else f"{reference[k] + 0.0:.4f}",
                    "potential_THz": f"{x:.4f}",
                    "asymmetry_eV_per_A2": f"{result.report.asymmetry:.5f}",
                    "pet_calc": __version__,
                    "python": platform.python_version(),
                }
                for k, x in enumerate(found)
            ]
        for split in result.spectrum.splittings:
            print(f"Γ to {split.towards}", " ".join(f"{x + 0.0:7.2f}" for x in split.frequencies))
            rows += [
                {**rows[-1], "point": f"Γ to {split.towards}", "band": k + 1,
                 "potential_THz": f"{x + 0.0:.4f}"}
                for k, x in enumerate(split.frequencies)
            ]  # fmt: skip
        if errors:
            print(f"mean absolute error {np.abs(errors).mean():.2f} THz")
        for text in result.warnings:
            print(f"warning: {text}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
