"""``expected.json``: what a potential gave for a few fixed structures when it was published.

A potential whose files are whole can still give other numbers, through a change of the code that
runs it. The file holds structures (numbers; positions and cell in Å; pbc) with energy (eV), forces
(eV/Å) and stress (eV/Å³, Voigt order xx, yy, zz, yz, xz, xy; null where it is not defined),
computed in float64, and the tolerances within which they are reproduced in each precision::

    {
     "format": 1,
     "made_with": {"pet_calc": "0.1.0", "torch": "2.13.0", "dtype": "float64", "device": "cpu"},
     "tolerances": {"float32": {"energy": ..., "forces": ..., "stress": ...}, "float64": {...}},
     "structures": [{"name": ..., "numbers": [...], "positions": [...], "cell": [...],
                     "pbc": [...], "energy": ..., "forces": [...], "stress": [...]}]
    }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

import pet_calc
from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.files import write_atomically
from pet_calc.io.models.weights import copy_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.models.architectures import Model
from pet_calc.neighbors import neighbor_list

EXPECTED: Final = "expected.json"
FORMAT: Final = 1
QUANTITIES: Final = ("energy", "forces", "stress")

#: Largest accepted deviation: energy in eV per atom, forces in eV/Å, stress in eV/Å³. Those of
#: float64 leave room for another order of summation, those of float32 for its rounding.
TOLERANCES: Final[dict[str, dict[str, float]]] = {
    "float32": {"energy": 1e-5, "forces": 1e-4, "stress": 1e-6},
    "float64": {"energy": 1e-9, "forces": 1e-8, "stress": 1e-10},
}


@dataclass(frozen=True)
class Deviation:
    """How far one quantity of one structure is from what was recorded.

    Attributes
    ----------
    structure, quantity : str
        Name of the structure; "energy", "forces" or "stress".
    found, tolerance : float
        Largest absolute deviation and its limit, in eV per atom, eV/Å or eV/Å³.
    """

    structure: str
    quantity: str
    found: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the deviation is a number within its limit."""
        return self.found <= self.tolerance


def write_expected(
    folder: Path | str,
    model: Model,
    structures: Mapping[str, Atoms],
    tolerances: Mapping[str, Mapping[str, float]] = TOLERANCES,
) -> None:
    """Compute a potential's results in float64 and write them beside it.

    Parameters
    ----------
    folder : path
        The potential's folder.
    model : PET
        The potential, as ``load_model`` reads it from that folder.
    structures : mapping of str to ase.Atoms
        Fixed structures by name; three of different kinds are usual.
    tolerances : mapping
        Precision to quantity to largest deviation; see `TOLERANCES` for units.
    """
    exact = copy_model(model, torch.float64)
    content = {
        "format": FORMAT,
        "made_with": {
            "pet_calc": pet_calc.__version__,
            "torch": str(torch.__version__),
            "dtype": "float64",
            "device": "cpu",
        },
        "tolerances": {dtype: dict(limits) for dtype, limits in tolerances.items()},
        "structures": [
            {
                "name": name,
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.array.tolist(),
                "pbc": atoms.pbc.tolist(),
            }
            | {
                quantity: None if value is None else value.tolist()
                for quantity, value in results_of(exact, atoms).items()
            }
            for name, atoms in structures.items()
        ],
    }
    write_atomically(Path(folder) / EXPECTED, (json.dumps(content) + "\n").encode())


def read_expected(folder: Path | str) -> dict[str, Any]:
    """Content of a potential's ``expected.json``.

    Raises
    ------
    PotentialNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged or of another format.
    """
    path = Path(folder) / EXPECTED
    if not path.is_file():
        raise PotentialNotFoundError(
            f"there is no {path} to compare with; a published potential has one"
        )
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} must be of format {FORMAT}, got {found}")
    return dict(content)


def compare_expected(folder: Path | str, model: Model) -> list[Deviation]:
    """Deviations of a model's results, in its own precision, from its ``expected.json``.

    Returns
    -------
    list of Deviation
        For each structure its energy, forces and, where recorded, stress.
    """
    content = read_expected(folder)
    limits = content["tolerances"][str(model.dtype).removeprefix("torch.")]
    deviations = []
    for entry in content["structures"]:
        atoms = Atoms(
            numbers=entry["numbers"],
            positions=entry["positions"],
            cell=entry["cell"],
            pbc=entry["pbc"],
        )
        results = results_of(model, atoms)
        for quantity in QUANTITIES:
            value, recorded = results[quantity], entry[quantity]
            if recorded is None:
                continue
            if value is None:
                deviation = float("nan")
            else:
                # not np.ptp or a masked maximum: a NaN must come through
                deviation = float(np.abs(value - np.asarray(recorded)).max())
            if quantity == "energy":
                deviation /= len(atoms)
            deviations.append(Deviation(entry["name"], quantity, deviation, limits[quantity]))
    return deviations


def results_of(model: Model, atoms: Atoms) -> dict[str, NDArray[np.float64] | None]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³; None where it is not defined)."""
    device = next(model.parameters()).device
    system = system_from_atoms(atoms, device)
    results = evaluate(model, system, neighbor_list(system, model.cutoff))
    assert results.forces is not None
    assert results.stress is not None
    return {
        "energy": results.energy[0].cpu().numpy(),
        "forces": results.forces.cpu().numpy(),
        "stress": results.stress[0].cpu().numpy() if atoms.pbc.all() else None,
    }
