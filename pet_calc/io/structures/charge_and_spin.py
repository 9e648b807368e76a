"""Total charge and spin multiplicity of an ``ase.Atoms``, as its ``info`` gives them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ase import Atoms

from pet_calc.errors import InvalidStructureError

#: Entries of ``atoms.info`` that results can depend on. "spin" is another name of the multiplicity.
CHARGE: Final = "charge"
SPIN: Final = ("spin_multiplicity", "spin")
INFO_KEYS: Final = (CHARGE, *SPIN)


def charge_and_spin(atoms: Atoms) -> tuple[int, int]:
    """Total charge in elementary charges, and 2S + 1; by default a neutral singlet.

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
            f"a structure has one spin multiplicity 2S + 1, but atoms.info has {named}; delete "
            f"one of the two"
        )
    return charge or 0, next(iter(named.values()), 1)


def state_text(atoms: Atoms) -> str:
    """Charge and spin as ``atoms.info`` has them, for digests; empty if it has neither."""
    given = {key: atoms.info[key] for key in INFO_KEYS if atoms.info.get(key) is not None}
    return " ".join(f"{key}={np.asarray(value).tolist()}" for key, value in given.items())


def same_state(first: Atoms, second: Atoms) -> bool:
    """Whether two structures have the same entries for charge and spin."""
    values = ([np.asarray(a.info.get(key)) for key in INFO_KEYS] for a in (first, second))
    return all(np.array_equal(x, y) for x, y in zip(*values, strict=True))


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
