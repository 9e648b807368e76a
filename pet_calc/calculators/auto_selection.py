"""The choice of a shipped potential by an "auto" calculator."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ase import Atoms

from pet_calc.io.structures.separation import symbol
from pet_calc.pretrained import LoadedPotential, PotentialEntry, choose_for, in_order

_log = logging.getLogger("pet_calc")


def other_choice(
    current: LoadedPotential | None, structures: Sequence[Atoms], architecture: str, dtype: str
) -> PotentialEntry | None:
    """The shipped potential to load for structures; None if the current one suits them.

    Logs the choice, and warns if it replaces another one.

    Raises
    ------
    UnsupportedElementError
        If no shipped potential of the architecture suits all of them.
    """
    systems = list(
        dict.fromkeys(frozenset(symbol(z) for z in set(a.numbers.tolist())) for a in structures)
    )
    if current is not None and all(map(current.suits, systems)):
        return None
    entry = choose_for(systems, architecture)
    names = "; ".join(", ".join(in_order(s)) for s in systems)
    _log.info("using the potential %s for %s (%s)", entry.name, names, dtype)
    if current is not None:
        _log.warning(
            "using %s instead of %s from now on, which was not made for %s: energies of "
            "different potentials do not compare",
            entry.name,
            current.name,
            names,
        )
    return entry
