"""Which shipped potential an "auto" calculator takes, and what it says of that."""

from __future__ import annotations

import logging

import torch

from pet_calc.geometry import System
from pet_calc.io.structures.separation import symbol
from pet_calc.pretrained import LoadedPotential, PotentialEntry, choose_for, in_order

_log = logging.getLogger("pet_calc")


def chemical_systems(system: System) -> list[frozenset[str]]:
    """Chemical symbols of the elements in each structure of a batch, each set once."""
    if system.n_systems == 1:
        return [frozenset(symbol(z) for z in torch.unique(system.numbers).tolist())]
    pairs = torch.unique(torch.stack([system.system_index, system.numbers]), dim=1)
    found: dict[int, set[str]] = {}
    for k, z in pairs.T.tolist():
        found.setdefault(k, set()).add(symbol(z))
    return list(dict.fromkeys(frozenset(s) for s in found.values()))


def other_choice(
    current: LoadedPotential | None, system: System, architecture: str, dtype: str
) -> PotentialEntry | None:
    """The shipped potential to load for `system`; None if the current one suits it.

    Logs the choice, and warns if it replaces another one.

    Raises
    ------
    UnsupportedElementError
        If no shipped potential of the architecture suits the system.
    """
    systems = chemical_systems(system)
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
