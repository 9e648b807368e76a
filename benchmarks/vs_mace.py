"""PET here beside MACE and ASE's effective-medium theory: what a step costs, not how good it is.

    python -m venv bench && bench/bin/pip install torch==2.13.0 mace-torch "pet-calc"
    bench/bin/python benchmarks/vs_mace.py --out benchmarks/results/vs_mace.csv

Energy, forces and stress of the same boxes through each package's ASE calculator, neighbor lists
included, on slightly different positions each time; one thread, processor time, float32, best of
many turns. The models differ in what they are: each has the cutoff that its table entry states, and
neither errors nor weights are compared. MACE has random weights in the sizes that its small
foundation model was published with (128 scalar channels, two layers, correlation 3, 89 elements,
cutoff 6 Å), and once more with PET's cutoff of 4.5 Å; it runs as its calculator runs it, without
compilation. The PET of the first rows has random weights too; the shipped potentials are smaller.
ASE's EMT is not meant for water; it is the floor that a short pair sum with ASE's own neighbor
list sets.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pet_step import cpu_time, processor

from pet_calc import PETCalculator, __version__
from pet_calc.models.pet import PET, PETConfig
from pet_calc.workflows.water_box import water_box


def copper() -> Atoms:
    """108 atoms, rattled."""
    atoms = bulk("Cu", cubic=True).repeat(3)
    atoms.rattle(0.05, seed=0)
    return atoms


def mace(cutoff: float) -> Any:
    """A MACE of the published small size with random weights, as an ASE calculator."""
    # before e3nn, whose constants it makes loadable
    from mace import modules
    from mace.calculators import MACECalculator

    from e3nn import o3  # isort: skip

    elements = list(range(1, 90))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=10,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes[
                "RealAgnosticResidualInteractionBlock"
            ],
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps("128x0e"),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.zeros(len(elements)),
            avg_num_neighbors=60.0,
            atomic_numbers=elements,
            correlation=3,
            radial_type="bessel",
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
    return MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")


def random_pet() -> PETCalculator:
    """A PET with the published default sizes and random weights, for the same boxes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PETCalculator(PET(PETConfig(elements=(1, 8, 29))))


def contestants(elements: set[str], with_mace: bool) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Cutoff in Å, and maker, of each calculator."""
    found: dict[str, tuple[float, Callable[[], Any]]] = {
        "pet_calc, random weights, d = 128": (4.5, random_pet)
    }
    if elements == {"H", "O"}:
        for name in ("pet-water-v1", "pet-water-v4"):
            cutoff = PETCalculator(name).potentials[0].model.cutoff
            found[f"pet_calc, {name}"] = (cutoff, lambda name=name: PETCalculator(name))
    if with_mace:
        found["MACE, small foundation size"] = (6.0, lambda: mace(6.0))
        found["MACE, the same at 4.5 Å"] = (4.5, lambda: mace(4.5))
    found["ASE EMT"] = (float("nan"), EMT)
    return found


def installed(name: str) -> str:
    """Version of a package; empty if it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    version = installed("mace-torch")
    if not version:
        print("mace-torch is not installed: measured without it")
    rows: list[dict[str, object]] = []
    for box, atoms in {"64 water molecules": water_box(64, seed=0), "108 copper": copper()}.items():
        rng = np.random.default_rng(0)
        makers = contestants(set(atoms.symbols), bool(version))
        calculators = {name: make() for name, (_, make) in makers.items()}
        best: dict[str, float] = {}
        for turn in range(options.repeats + 1):
            for name, calculator in calculators.items():
                atoms.positions += 1e-3 * rng.standard_normal(atoms.positions.shape)
                atoms.calc = calculator

                def step(atoms: Atoms = atoms) -> None:
                    atoms.get_potential_energy()
                    atoms.get_forces()
                    atoms.get_stress()

                seconds = cpu_time(step)
                if turn:  # the first one also pays for what is done once
                    best[name] = min(best.get(name, seconds), seconds)
        reference = best["pet_calc, random weights, d = 128"]
        for name, seconds in best.items():
            rows.append({
                "box": box,
                "n_atoms": len(atoms),
                "contestant": name,
                "cutoff_A": makers[name][0],
                "cpu_s": round(seconds, 4),
                "cpu_us_per_atom": round(1e6 * seconds / len(atoms), 1),
                "relative_to_pet_128": round(seconds / reference, 3),
                "dtype": "float64" if name == "ASE EMT" else "float32",
                "threads": 1,
                "load_average": round(os.getloadavg()[0], 1),
                "processor": processor(),
                "pet_calc": __version__,
                "mace_torch": version,
                "torch": torch.__version__,
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            })  # fmt: skip
            print(*(f"{k} {rows[-1][k]}" for k in list(rows[-1])[:7]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
