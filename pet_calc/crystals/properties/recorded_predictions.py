"""What a property model predicted when it was published, and whether it still does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.properties.predictor import PropertyPredictor
from pet_calc.errors import IntegrityError
from pet_calc.io.models.expected import EXPECTED
from pet_calc.pretrained import PotentialEntry


def record_predictions(folder: Path, crystals: Sequence[Atoms]) -> None:
    """Write what the model in a folder predicts of some crystals into ``expected.json``."""
    targets = [t.name for t in load_property_model(folder).config.targets]
    records = [
        {
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.tolist(),
            "positions": atoms.positions.tolist(),
            "values": {t: PropertyPredictor(t, folder)(atoms).value for t in targets},
        }
        for atoms in crystals
    ]
    text = json.dumps({"crystals": records}, indent=1) + "\n"
    (folder / EXPECTED).write_text(text, encoding="utf-8")


def compare_predictions(entry: PotentialEntry, tolerance: float = 1e-6) -> int:
    """Predict what ``expected.json`` of a shipped model records; the number of values.

    Raises
    ------
    IntegrityError
        If a file does not have its SHA-256, or a prediction is not the recorded one.
    """
    recorded = json.loads((entry.folder / EXPECTED).read_text(encoding="utf-8"))["crystals"]
    compared = 0
    for target in entry.targets:
        predictor = PropertyPredictor(target, entry.name)
        for r in recorded:
            atoms = Atoms(r["numbers"], r["positions"], cell=r["cell"], pbc=True)
            found, expected = predictor(atoms).value, r["values"][target]
            if not abs(found - expected) <= tolerance * max(1.0, abs(expected)):
                raise IntegrityError(
                    f"{entry.name} must predict the {target} {expected:.6g} of "
                    f"{atoms.get_chemical_formula()} that {EXPECTED} records, found {found:.6g}; "
                    f"install the package again"
                )
            compared += 1
    return compared
