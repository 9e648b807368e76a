"""Errors of a fine-tuned potential beside those of the one that it started from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

import torch

from pet_calc.models import EnergyModel, evaluate
from pet_calc.training.potentials.data import Batch, fit_composition
from pet_calc.training.potentials.evaluate import Error, evaluate_frames


@dataclass(frozen=True)
class Change:
    """One error before and after a fine-tuning.

    Attributes
    ----------
    split : str
        The set that it was measured on.
    quantity : str
        "energy" as predicted, "energy, zero fitted" after `without_references`, "forces", "stress".
    unit : str
    mae_before, mae_after, rmse_before, rmse_after : float
    values : int
        Number of labels.
    """

    split: str
    quantity: str
    unit: str
    mae_before: float
    mae_after: float
    rmse_before: float
    rmse_after: float
    values: int


def without_references(model: EnergyModel, frames: Sequence[Batch]) -> Error:
    """Error of the energy per atom in meV, less its least-squares fit on composition.

    Two codes or functionals count energy from different zeros. The fit takes that away, of the
    labels and of a model that was aligned with others.
    """
    found = [f for f in frames if bool(torch.isfinite(f.energy).all())]
    if not found:
        return Error(float("nan"), float("nan"), 0)
    errors = torch.cat([
        evaluate(model, f.system, f.edges, forces=False, stress=False).energy
        - f.energy
        for f in found
    ])  # fmt: skip
    elements = model.atomic_numbers
    numbers = [f.system.numbers.numpy() for f in found]
    shift = fit_composition(numbers, errors.numpy(), elements)
    counts = torch.tensor([[int((f.system.numbers == z).sum()) for z in elements] for f in found])
    n_atoms = torch.cat([f.n_atoms for f in found])
    return Error.of(1e3 * ((errors - counts.double() @ shift) / n_atoms).numpy())


def before_and_after(
    before: EnergyModel, after: EnergyModel, sets: Mapping[str, Sequence[Batch]]
) -> list[Change]:
    """Errors of both models on each of the sets.

    Parameters
    ----------
    before, after : EnergyModel
    sets : mapping of str to sequence of Batch
        Prepared at the cutoff of the models, by name.
    """
    changes = []
    for split, frames in sets.items():
        found = []
        for model in (before, after):
            e = evaluate_frames(model, frames)
            found.append({
                ("energy", "meV/atom"): e.energy,
                ("energy, zero fitted", "meV/atom"): without_references(model, frames),
                ("forces", "meV/Å"): e.forces,
                ("stress", "meV/Å³"): e.stress,
            })  # fmt: skip
        changes += [
            Change(split, *name, a.mae, b.mae, a.rmse, b.rmse, a.count)
            for (name, a), b in zip(found[0].items(), found[1].values(), strict=True)
            if a.count
        ]
    return changes


def write_comparison(path: Path, changes: Iterable[Change]) -> None:
    """One row for each error."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [f.name for f in fields(Change)])
        writer.writeheader()
        writer.writerows(asdict(c) for c in changes)


def read_comparison(path: Path) -> list[Change]:
    """What `write_comparison` wrote."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    kinds = get_type_hints(Change)
    return [Change(**{name: kinds[name](text) for name, text in row.items()}) for row in rows]
