"""Element substitution: known crystals with other elements on their sites."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from pet_calc.crystals.generation.composition import Composition

#: Name, space group, basis, sites (element, fractional coordinates), cell parameters.
_CRYSTALS: Final = (
    ("perovskite", 221, "CaTiO3", ((0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)), ("Ca", "Ti", "O"),
     (3.85, 3.85, 3.85, 90, 90, 90)),
    ("rutile", 136, "TiO2", ((0, 0, 0), (0.305, 0.305, 0)), ("Ti", "O"),
     (4.59, 4.59, 2.96, 90, 90, 90)),
    ("Cu3Au", 221, "Cu3Au", ((0, 0.5, 0.5), (0, 0, 0)), ("Cu", "Au"),
     (3.75, 3.75, 3.75, 90, 90, 90)),
    ("spinel", 227, "MgAl2O4", ((0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0.2625, 0.2625, 0.2625)),
     ("Mg", "Al", "O"), (8.08, 8.08, 8.08, 90, 90, 90)),
    ("NiAs", 194, "NiAs", ((0, 0, 0), (1 / 3, 2 / 3, 0.25)), ("Ni", "As"),
     (3.62, 3.62, 5.03, 90, 90, 120)),
    ("CdI2", 164, "CdI2", ((0, 0, 0), (1 / 3, 2 / 3, 0.25)), ("Cd", "I"),
     (4.24, 4.24, 6.84, 90, 90, 120)),
    ("Heusler", 225, "Cu2MnAl", ((0.25, 0.25, 0.25), (0.5, 0.5, 0.5), (0, 0, 0)),
     ("Cu", "Mn", "Al"), (5.95, 5.95, 5.95, 90, 90, 90)),
    ("half-Heusler", 216, "MgAgAs", ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (0, 0, 0)),
     ("Mg", "Ag", "As"), (6.24, 6.24, 6.24, 90, 90, 90)),
    ("L1_0", 123, "CuAu", ((0, 0, 0), (0.5, 0.5, 0.5)), ("Cu", "Au"),
     (2.80, 2.80, 3.67, 90, 90, 90)),
    ("ThCr2Si2", 139, "ThCr2Si2", ((0, 0, 0), (0, 0.5, 0.25), (0, 0, 0.374)), ("Th", "Cr", "Si"),
     (4.04, 4.04, 10.6, 90, 90, 90)),
)  # fmt: skip


def prototypes() -> list[Atoms]:
    """Common structure types, from ASE's builders; ``info["prototype"]`` is their name."""
    found = {
        "fcc": bulk("Cu", "fcc", a=3.6),
        "bcc": bulk("Fe", "bcc", a=2.87),
        "hcp": bulk("Mg", "hcp", a=3.21, c=5.21),
        "diamond": bulk("C", "diamond", a=3.57),
        "rocksalt": bulk("NaCl", "rocksalt", a=5.64),
        "CsCl": bulk("CsCl", "cesiumchloride", a=4.12),
        "zincblende": bulk("ZnS", "zincblende", a=5.42),
        "wurtzite": bulk("ZnS", "wurtzite", a=3.82, c=6.26),
        "fluorite": bulk("CaFF", "fluorite", a=5.46),
        **{
            name: crystal(symbols, basis, spacegroup=group, cellpar=cell, primitive_cell=True)
            for name, group, _, basis, symbols, cell in _CRYSTALS
        },
    }
    for name, atoms in found.items():
        atoms.info = {"prototype": name}
    return list(found.values())


def propose_substituted(
    composition: Composition, n: int, templates: Sequence[Atoms] | None = None
) -> list[Atoms]:
    """Templates of the same anonymous formula and cell content with the wanted elements.

    The cell is scaled to the volume expected of the new elements.

    Parameters
    ----------
    composition : Composition
    n : int
        Most crystals returned; fewer, or none, where templates are few.
    templates : sequence of Atoms, optional
        By default `prototypes`.

    Returns
    -------
    list of Atoms
        In the order of the templates; ``info["prototype"]`` says which.
    """
    found: list[Atoms] = []
    wanted = sorted(composition.counts, key=lambda c: c[1])
    for k, template in enumerate(prototypes() if templates is None else templates):
        have = Composition.from_numbers(np.asarray(template.numbers))
        if have.anonymous != composition.anonymous or composition.n_atoms % have.n_atoms:
            continue
        if composition.n_atoms != have.n_atoms:
            continue
        for kinds in itertools.permutations(have.counts):
            if [c for _, c in kinds] != [c for _, c in wanted]:
                continue
            table = {old: new for (old, _), (new, _) in zip(kinds, wanted, strict=True)}
            atoms = Atoms(
                numbers=[table[z] for z in template.numbers.tolist()],
                scaled_positions=template.get_scaled_positions(),
                cell=template.cell,
                pbc=True,
            )
            scale = (composition.volume / have.volume) ** (1 / 3)
            atoms.set_cell(atoms.cell * scale, scale_atoms=True)
            atoms.info["prototype"] = template.info.get("prototype", f"template {k}")
            found.append(atoms[np.argsort(atoms.numbers, kind="stable")])
            if len(found) == n:
                return found
    return found
