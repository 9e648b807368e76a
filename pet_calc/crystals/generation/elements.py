"""Crystals of the elements at low temperature, where ASE knows the lattice but not the atoms.

Lattice parameters in Å and fractional coordinates, rounded, from J. Donohue, The Structures of the
Elements (Wiley, 1974), for S, B and P from S. J. Rettig and J. Trotter, Acta Cryst. C 43, 2260
(1987), G. Will and B. Kiefer, Z. anorg. allg. Chem. 627, 2100 (2001), and A. Brown and S.
Rundqvist, Acta Cryst. 19, 684 (1965). They are the starts of relaxations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from ase import Atoms
from ase.build import niggli_reduce
from ase.spacegroup import crystal


@dataclass(frozen=True)
class ElementalCrystal:
    """One element in a space group.

    Attributes
    ----------
    group, setting : int
        Number of the space group, and its origin choice.
    cell : tuple of float
        Lengths in Å and angles in degrees.
    sites : tuple of tuple of float
        Fractional coordinates of one atom of each orbit.
    """

    group: int
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[tuple[float, float, float], ...]
    setting: int = 1


def orthorhombic(a: float, b: float, c: float) -> tuple[float, float, float, float, float, float]:
    """Lengths and right angles."""
    return a, b, c, 90.0, 90.0, 90.0


def hexagonal(a: float, c: float) -> tuple[float, float, float, float, float, float]:
    """Lengths and angles."""
    return a, a, c, 90.0, 90.0, 120.0


CRYSTALS: Final = {
    # layers of diatomic molecules, Cmce
    "Cl": ElementalCrystal(64, orthorhombic(6.24, 4.48, 8.26), ((0.0, 0.130, 0.100),)),
    "Br": ElementalCrystal(64, orthorhombic(6.67, 4.48, 8.72), ((0.0, 0.135, 0.110),)),
    "I": ElementalCrystal(64, orthorhombic(7.27, 4.79, 9.79), ((0.0, 0.149, 0.1169),)),
    "Ga": ElementalCrystal(64, orthorhombic(4.5192, 7.6586, 4.5258), ((0.0, 0.1549, 0.0810),)),
    # black phosphorus
    "P": ElementalCrystal(64, orthorhombic(3.3136, 10.478, 4.3763), ((0.0, 0.1017, 0.0806),)),
    # helical chains, P3_121
    "Se": ElementalCrystal(152, hexagonal(4.366, 4.954), ((0.2254, 0.0, 1 / 3),)),
    "Te": ElementalCrystal(152, hexagonal(4.457, 5.929), ((0.2636, 0.0, 1 / 3),)),
    # rings of eight, Fddd
    "S": ElementalCrystal(
        70,
        orthorhombic(10.4646, 12.8660, 24.4860),
        (
            (0.8560, 0.9526, 0.9516),
            (0.7844, 0.0301, 0.0762),
            (0.7073, 0.9795, 0.0041),
            (0.7861, 0.9074, 0.1290),
        ),
        setting=2,
    ),
    # icosahedra, R-3m
    "B": ElementalCrystal(
        166, hexagonal(4.908, 12.559), ((0.1189, -0.1189, 0.8912), (0.1969, -0.1969, 0.0243))
    ),
    "Mn": ElementalCrystal(
        217,
        (8.9125, 8.9125, 8.9125, 90.0, 90.0, 90.0),
        ((0.0, 0.0, 0.0), (0.317, 0.317, 0.317), (0.356, 0.356, 0.034), (0.089, 0.089, 0.282)),
    ),
    "Pm": ElementalCrystal(194, hexagonal(3.65, 11.65), ((0.0, 0.0, 0.0), (1 / 3, 2 / 3, 0.25))),
    "Pa": ElementalCrystal(139, (3.92, 3.92, 3.238, 90.0, 90.0, 90.0), ((0.0, 0.0, 0.0),)),
}


def elemental_crystal(symbol: str) -> Atoms:
    """The primitive cell of an element of `CRYSTALS`."""
    found = CRYSTALS[symbol]
    atoms = crystal(
        [symbol] * len(found.sites),
        basis=np.array(found.sites),
        spacegroup=found.group,
        setting=found.setting,
        cellpar=list(found.cell),
        primitive_cell=True,
        symprec=1e-4,
    )
    niggli_reduce(atoms)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
