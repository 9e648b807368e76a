"""Dipoles and polarizabilities of water clusters from heads on a shipped potential, as CSV.

    python benchmarks/tensor_heads.py --out benchmarks/results/tensor_heads.csv

Heads on `pet-water-v4` and `pet-water-v1` are fitted to some of the clusters in ``benchmarks/data``
(PBE0, made by ``water_cluster_dipoles.py``) and compared with the last 40, which no head has seen.
Beside them the least one could do: for dipoles one charge on all hydrogen atoms, the opposite on
the oxygen atoms, for polarizabilities the mean per molecule, both fitted to the same clusters.
Atomic polar tensors are derivatives of the head, which saw dipoles alone. Columns: root mean square
error of a component, and over the root mean square of the component (of polarizabilities: of what
differs from the mean per molecule).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from pet_calc.calculators.tensors import fit_tensor_head, tensor_property
from pet_calc.geometry.cell import matrix_from_voigt
from pet_calc.models.ecse.tensors import TensorHead
from pet_calc.models.pet import PET
from pet_calc.pretrained import load

CLUSTERS = Path(__file__).parent / "data" / "water_clusters.extxyz.xz"
N_TEST = 40
COLUMNS = (
    "quantity", "unit", "clusters", "source", "rmse", "relative", "model", "torch",
)  # fmt: skip


def water_clusters() -> tuple[list[Atoms], np.ndarray, np.ndarray]:
    """Structures, dipoles (n, 3) in e Å and polarizabilities (n, 3, 3) in Å³."""
    frames = read(CLUSTERS, ":")
    dipoles = np.array([a.get_dipole_moment() for a in frames])
    voigt = torch.tensor(np.array([a.info["polarizability"] for a in frames]))
    return frames, dipoles, matrix_from_voigt(voigt).numpy()


def charges(atoms: Atoms) -> np.ndarray:
    """1 on each hydrogen and -2 on each oxygen atom."""
    return np.where(atoms.numbers == 1, 1.0, -2.0)


def totals(model: PET, head: TensorHead, structures: list[Atoms]) -> np.ndarray:
    """What a head says of structures."""
    return np.array([tensor_property(model, head, a).total for a in structures])


def rows_of(name: str, sizes: list[int]) -> list[list[object]]:
    """The table, for each number of clusters in the fit."""
    model = load(name, dtype="float64").model
    frames, dipoles, tensors = water_clusters()
    test, molecules = frames[-N_TEST:], np.array([len(a) // 3 for a in frames])
    found: list[list[object]] = []

    def add(quantity: str, unit: str, n: int, source: str, gap: np.ndarray, truth: np.ndarray):
        rmse, size = (float(np.sqrt(np.mean(np.square(x)))) for x in (gap, truth))
        found.append(
            [
                quantity,
                unit,
                n,
                source,
                f"{rmse:.4f}",
                f"{rmse / size:.4f}",
                name,
                torch.__version__,
            ]
        )
        print(*found[-1], flush=True)

    for n in sizes:
        head = fit_tensor_head(
            model, frames[:n], dipoles[:n], irreps="1o", quantity="dipole", unit="e Å"
        )
        truth = dipoles[-N_TEST:]
        moments = np.array([charges(a) @ a.positions for a in frames])
        charge = (moments[:n] * dipoles[:n]).sum() / np.square(moments[:n]).sum()
        add("dipole", "e Å", n, "head", totals(model, head, test) - truth, truth)
        add("dipole", "e Å", n, "charges", charge * moments[-N_TEST:] - truth, truth)
        known = [a for a in test if "apt" in a.arrays]
        born = [a.arrays["apt"].reshape(-1, 3, 3) for a in known]
        said = [tensor_property(model, head, a, derivative=True).derivative for a in known]
        point = [charge * charges(a)[:, None, None] * np.eye(3) for a in known]
        every = np.concatenate(born)
        for source, values in (("head", said), ("charges", point)):
            add("atomic polar tensor", "e", n, source, np.concatenate(values) - every, every)

        head = fit_tensor_head(
            model, frames[:n], tensors[:n], irreps="0e + 2e", quantity="polarizability", unit="Å³"
        )
        each = (tensors[:n] / molecules[:n, None, None]).mean(0).trace() / 3 * np.eye(3)
        mean = molecules[-N_TEST:, None, None] * each
        truth = tensors[-N_TEST:]
        gap = totals(model, head, test) - truth
        add("polarizability", "Å³", n, "head", gap, truth - mean)
        add("polarizability", "Å³", n, "mean", mean - truth, truth - mean)
    return found


def main() -> None:
    """Fit, compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["pet-water-v4", "pet-water-v1"])
    parser.add_argument("--clusters", type=int, nargs="+", default=[30, 60, 90])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in options.model for row in rows_of(name, options.clusters)]
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
