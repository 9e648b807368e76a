"""Which total charges and spin multiplicities a model knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from pet_calc.errors import InvalidStructureError
from pet_calc.io.conditions import INFO_KEYS
from pet_calc.models import EnergyModel
from pet_calc.models.pet import PET
from pet_calc.models.pet.conditioning import Conditions

_log = logging.getLogger("pet_calc")


def known_conditions(
    model: EnergyModel, charge: int, spin_multiplicity: int, n_atoms: int, name: str
) -> Conditions | None:
    """Charge and spin as a model takes them; None for a neutral singlet, which is its default.

    A model without `system_conditioning` stands for the states of its training data: it takes
    neutral structures of any spin, and is refused for charged ones.

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
    if not knows_conditions(model):
        if charge != 0:
            raise InvalidStructureError(
                f"{name} knows no charges, but atoms.info['charge'] is {charge:+d}: its energy "
                f"would be that of another system; choose a potential made with "
                f"system_conditioning, or delete the entry"
            )
        return None
    assert isinstance(model, PET)
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
    if (charge, spin_multiplicity) == (0, 1):
        return None
    return Conditions.uniform(n_atoms, charge, spin_multiplicity)


def joint_conditions(
    model: EnergyModel, states: Sequence[tuple[int, int]], sizes: Sequence[int], name: str
) -> Conditions | None:
    """Charges and spins of a batch as a model takes them; None if all are its default.

    Parameters
    ----------
    model : EnergyModel
    states : sequence of (int, int)
        Charge and spin multiplicity of each system.
    sizes : sequence of int
        Atoms of each system.
    name : str
        Of the potential, for the messages.

    Raises
    ------
    InvalidStructureError
        See `known_conditions`.
    """
    found = [known_conditions(model, *s, n, name) for s, n in zip(states, sizes, strict=True)]
    if all(c is None for c in found):
        return None
    return Conditions.concatenate(
        [Conditions.uniform(n) if c is None else c for c, n in zip(found, sizes, strict=True)]
    )


def warn_of_spin(name: str, spin_multiplicity: int) -> None:
    """Log that a potential does not look at the spin of a structure."""
    _log.warning(
        "%s knows no spins: it takes every structure for what its training data were, whatever "
        "atoms.info says (2S + 1 = %d)",
        name,
        spin_multiplicity,
    )


def knows_conditions(model: EnergyModel) -> bool:
    """Whether a model's results depend on charge and spin."""
    return isinstance(model, PET) and model.config.system_conditioning


def same_info(first: Atoms, second: Atoms) -> bool:
    """Whether two structures say the same about charge and spin."""
    values = ([np.asarray(a.info.get(key)) for key in INFO_KEYS] for a in (first, second))
    return all(np.array_equal(x, y) for x, y in zip(*values, strict=True))
