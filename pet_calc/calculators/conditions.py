"""Total charge and spin multiplicity of an ``ase.Atoms``, as its ``info`` gives them."""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
from ase import Atoms

from pet_calc.errors import InvalidStructureError
from pet_calc.models import EnergyModel
from pet_calc.models.pet import PET
from pet_calc.models.pet.conditioning import ConditionedPET, Conditions

_log = logging.getLogger("pet_calc")

#: Entries of ``atoms.info`` that results can depend on. "spin" is another name of the multiplicity.
CHARGE: Final = "charge"
SPIN: Final = ("spin_multiplicity", "spin")
INFO_KEYS: Final = (CHARGE, *SPIN)


def charge_and_spin(atoms: Atoms) -> tuple[int, int]:
    """Total charge in elementary charges, and 2S + 1; a neutral singlet where nothing is said.

    Raises
    ------
    InvalidStructureError
        For values that are not whole numbers, and two names of the spin that disagree.
    """
    charge = whole_number(atoms, CHARGE)
    spins = {name: whole_number(atoms, name) for name in SPIN}
    named = {name: value for name, value in spins.items() if value is not None}
    if len(set(named.values())) > 1:
        raise InvalidStructureError(
            f"a structure has one spin multiplicity 2S + 1, but atoms.info says {named}; delete "
            f"one of the two"
        )
    return charge or 0, next(iter(named.values()), 1)


def whole_number(atoms: Atoms, key: str) -> int | None:
    """An entry of ``atoms.info`` as an integer; None if it is not there."""
    value: Any = atoms.info.get(key)
    if value is None:
        return None
    try:
        number = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        number = np.asarray(np.nan)
    if number.size != 1 or not np.isfinite(number).all() or number.item() != round(number.item()):
        raise InvalidStructureError(
            f"atoms.info[{key!r}] must be a whole number, got {value!r}; charges count elementary "
            f"charges and a spin is given by its multiplicity 2S + 1"
        )
    return int(number.item())


def under_conditions(
    model: EnergyModel, charge: int, spin_multiplicity: int, n_atoms: int, name: str
) -> EnergyModel:
    """A model as a structure of given charge and spin sees it.

    A model without `system_conditioning` stands for the states of its training data: it is
    returned as it is for neutral structures of any spin, and refused for charged ones.

    Parameters
    ----------
    model : EnergyModel
    charge, spin_multiplicity : int
    n_atoms : int
        Of the structure.
    name : str
        Of the potential, for the messages.

    Raises
    ------
    InvalidStructureError
        For a charge or spin that the model does not know.
    """
    if not isinstance(model, PET) or not model.config.system_conditioning:
        if charge != 0:
            raise InvalidStructureError(
                f"{name} knows no charges, but atoms.info['charge'] is {charge:+d}: its energy "
                f"would be that of another system; choose a potential made with "
                f"system_conditioning, or delete the entry"
            )
        return model
    config = model.config
    if abs(charge) > config.max_charge:
        raise InvalidStructureError(
            f"{name} knows charges from -{config.max_charge} to {config.max_charge}, but "
            f"atoms.info['charge'] is {charge:+d}"
        )
    if not 1 <= spin_multiplicity <= config.max_spin_multiplicity:
        raise InvalidStructureError(
            f"{name} knows spin multiplicities 2S + 1 from 1 to {config.max_spin_multiplicity}, "
            f"but atoms.info says {spin_multiplicity}"
        )
    return ConditionedPET(model, Conditions.uniform(n_atoms, charge, spin_multiplicity))


def same_info(first: Atoms, second: Atoms) -> bool:
    """Whether two structures say the same about charge and spin."""
    values = ([np.asarray(a.info.get(key)) for key in INFO_KEYS] for a in (first, second))
    return all(np.array_equal(x, y) for x, y in zip(*values, strict=True))
