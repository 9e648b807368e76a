"""How far are the phonons of silicon from DFT? A potential beside PBE force sets.

    PET_CALC_DATA=DATA python benchmarks/si_phonons.py --model pet-pbe-alloy \
        --out benchmarks/results/si_phonons.csv

DATA/phonons/Si holds a cell of 8 atoms and the forces of its displaced 2x2x2 supercell (PBE, in
phonopy's formats). The potential is asked for the same supercell, at the lattice constant of DFT
and at its own. Printed and written: the frequencies at Γ, X and L, their differences, and the
lattice constants; `--figure` draws the bands of both.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
from pathlib import Path

import numpy as np
from ase.io import read

from pet_calc import PETCalculator, __version__
from pet_calc.io.runs.figures import save_figure
from pet_calc.workflows.phonons import (
    PhononConfig,
    phonon_figure,
    phonons,
    reference_spectrum,
)
from pet_calc.workflows.phonons.spectrum import Spectrum

POINTS = ("Γ", "X", "L")


def frequencies(spectrum: Spectrum) -> dict[str, np.ndarray]:
    """Frequencies in THz at the points that are compared."""
    return {p.label: p.frequencies for p in spectrum.points if p.label in POINTS}


def main() -> None:
    """Compute, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="auto", help="a potential that covers Si, or its folder")
    parser.add_argument("--data", type=Path, default=os.environ.get("PET_CALC_DATA"))
    parser.add_argument("--displacements", default="full", choices=["full", "reduced"])
    parser.add_argument("--out", type=Path, help="CSV file")
    parser.add_argument("--figure", type=Path, help="PNG file with both band structures")
    options = parser.parse_args()
    if options.data is None:
        parser.error("set PET_CALC_DATA or --data to the folder that holds phonons/Si")

    folder = Path(options.data) / "phonons" / "Si"
    config = {"supercell": (2, 2, 2), "mesh": 60.0, "displacements": options.displacements}
    unitcell = folder / "POSCAR-unitcell"
    reference = reference_spectrum(
        unitcell, folder / "FORCE_SETS", (2, 2, 2), PhononConfig(mesh=60.0)
    )
    dft = frequencies(reference)
    atoms = read(unitcell)
    atoms.calc = PETCalculator(options.model, dtype="float64")
    constant = atoms.cell.lengths()[0]
    rows = []
    for name, relax in (("DFT", False), ("own", True)):
        result = phonons(atoms, PhononConfig(**config, relax=relax))
        # the conventional cell holds four primitive ones
        own = (4 * result.primitive.atoms.get_volume()) ** (1 / 3)
        found = frequencies(result.spectrum)
        print(f"\nlattice constant {own:.4f} Å ({name}; PBE: {constant:.4f} Å)")
        print("point  PBE (THz)                      potential (THz)                largest error")
        for point in POINTS:
            both = [" ".join(f"{x + 0.0:6.2f}" for x in f[3:]) for f in (dft[point], found[point])]
            low = [" ".join(f"{x + 0.0:6.2f}" for x in f[:3]) for f in (dft[point], found[point])]
            worst = np.abs(found[point] - dft[point]).max()
            print(f"{point:5}  {low[0]:30} {low[1]:30}")
            print(f"       {both[0]:30} {both[1]:30} {worst:6.2f}")
            rows += [
                {
                    "model": atoms.calc.todict()["model"],
                    "lattice": name,
                    "lattice_constant_A": f"{own:.5f}",
                    "displacements": options.displacements,
                    "point": point,
                    "band": k + 1,
                    "dft_THz": f"{a + 0.0:.4f}",
                    "potential_THz": f"{b + 0.0:.4f}",
                    "error_THz": f"{b - a + 0.0:.4f}",
                    "asymmetry_eV_per_A2": f"{result.report.asymmetry:.5f}",
                    "pet_calc": __version__,
                    "python": platform.python_version(),
                }
                for k, (a, b) in enumerate(zip(dft[point], found[point], strict=True))
            ]
        errors = np.concatenate([found[p] - dft[p] for p in POINTS])
        print(
            f"mean absolute error {np.abs(errors).mean():.2f} THz; removed by symmetrization: "
            f"{result.report.asymmetry:.2g} of {result.report.largest:.3g} eV/Å², "
            f"{result.report.gamma_shift:.2f} THz at Γ"
        )
        for text in result.warnings:
            print(f"warning: {text}")
    if options.figure:
        figure = phonon_figure(
            result.spectrum, title="Si", reference=reference, names=("potential", "PBE")
        )
        save_figure(figure, options.figure)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
