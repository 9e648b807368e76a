"""The errors that the card of a property model states, measured again from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.training.property_data import crystal_set, with_energies
from pet_calc.crystals.training.property_network import errors_of
from pet_calc.crystals.training.property_uncertainty import answers
from pet_calc.errors import CheckpointError
from pet_calc.io.data.crystals import read_crystals
from pet_calc.pretrained import PotentialEntry, read_card
from pet_calc.training.potentials.card import RELATIVE_TOLERANCE, CardNumber


def measure_property_card(entry: PotentialEntry, data: Path) -> list[CardNumber]:
    """Every mean absolute error in the card of a property model, measured again.

    In what is learnt: ``bulk_modulus_mae`` in log10(GPa); of a class the share of wrong ones.

    Parameters
    ----------
    entry : PotentialEntry
    data : Path
        Folder where the paths of the card start.

    Raises
    ------
    CheckpointError
        If the card names no files.
    """
    metrics: Any = read_card(entry.folder).front.get("metrics")
    if not isinstance(metrics, dict) or not any("files" in v for v in metrics.values()):
        raise CheckpointError(
            f"the card of {entry.name} names no files that its errors were measured on"
        )
    model = load_property_model(entry.folder, entry.sha256)
    known = set(model.config.elements)
    numbers = []
    for split, values in metrics.items():
        crystals = read_crystals([data / f for f in values["files"]], entry.targets)
        covered = [c for c in crystals if set(c.atoms.numbers.tolist()) <= known]
        found = crystal_set(covered, model.networks[0])
        found = with_energies(found, covered, model.config)
        errors = errors_of(model.config.targets, answers(model, found)[0], found.targets)
        for target in model.config.targets:
            stated = float(values[f"{target.name}_mae"])
            error = errors[target.name]
            error = 1 - error if target.kind == "class" else error
            limit = RELATIVE_TOLERANCE * stated
            numbers.append(CardNumber(split, f"{target.name}_mae", stated, error, limit))
    return numbers
