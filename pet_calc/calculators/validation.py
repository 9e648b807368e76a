"""Validation of input structures and of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms

from pet_calc.errors import InvalidStructureError, SimulationError, UnsupportedElementError
from pet_calc.io.structures.charge_and_spin import charge_and_spin
from pet_calc.io.structures.separation import symbol
from pet_calc.models import Results
from pet_calc.models.pet import PET


def require_elements(atoms: Atoms, covered: Sequence[int], name: str) -> None:
    """Raise `UnsupportedElementError` if an atom is of an element outside of `covered`.

    Parameters
    ----------
    atoms : Atoms
    covered : sequence of int
        Atomic numbers.
    name : str
        What covers them, for the message.
    """
    unknown = [symbol(z) for z in np.unique(atoms.numbers).tolist() if z not in covered]
    if unknown:
        raise UnsupportedElementError(
            f"{name} covers {', '.join(symbol(z) for z in covered)}, but the structure contains "
            f"{', '.join(unknown)}; choose a potential that covers them (`pet-calc models list`)"
        )


def has_conditioning(model: Any) -> bool:
    """Whether a model's results depend on charge and spin."""
    return isinstance(model, PET) and model.config.system_conditioning


def require_state(atoms: Atoms, model: Any, name: str) -> None:
    """Raise `InvalidStructureError` for a charge or spin that a model does not support.

    A model without `system_conditioning` stands for the states of its training data: it takes
    neutral structures of any spin.

    Parameters
    ----------
    atoms : Atoms
    model : EnergyModel
        As it is stored.
    name : str
        Of the potential, for the message.
    """
    charge, spin = charge_and_spin(atoms)
    if not has_conditioning(model):
        if charge != 0:
            raise InvalidStructureError(
                f"{name} does not support charged systems, but atoms.info['charge'] is "
                f"{charge:+d}; choose a potential made with system_conditioning, or delete the "
                f"entry"
            )
        return
    most_charge, most_spin = model.config.max_charge, model.config.max_spin_multiplicity
    if abs(charge) > most_charge:
        raise InvalidStructureError(
            f"{name} supports charges from -{most_charge} to {most_charge}, but "
            f"atoms.info['charge'] is {charge:+d}"
        )
    if not 1 <= spin <= most_spin:
        raise InvalidStructureError(
            f"{name} supports spin multiplicities 2S + 1 from 1 to {most_spin}, but atoms.info has "
            f"{spin}"
        )


def require_finite(results: Results) -> None:
    """Raise `SimulationError` if an energy or a force is not a finite number."""
    for name, unit, values in (
        ("energy", "eV", results.energies),
        ("force", "eV/Å", results.forces),
    ):
        if values is None or bool(torch.isfinite(values).all()):
            continue
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        atom = int((~finite).nonzero()[0])
        raise SimulationError(
            f"the potential must give finite numbers, but the {name} of atom {atom} is "
            f"{values[atom].tolist()} {unit} ({int((~finite).sum())} such atom(s)); the structure "
            f"lies far outside of what it was trained on"
        )
