"""Crystals of UniMat from files and ASE's objects, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from pet_calc.crystals.diffusion.unimat import Array, Crystal, decode, encode
from pet_calc.crystals.io.graphs import niggli_lattice
from pet_calc.errors import InvalidStructureError
from pet_calc.io.data.crystals import read_structures


def read_crystals(path: Path) -> list[Crystal]:
    """All crystals of a file (`pet_calc.io.data.crystals`).

    Raises
    ------
    DatasetError
        If the file is absent or holds no crystals.
    """
    return [crystal_from_atoms(atoms) for atoms in read_structures(path)]


def crystal_from_atoms(atoms: Atoms) -> Crystal:
    """A crystal from ASE's object.

    Raises
    ------
    InvalidStructureError
        If it is not periodic in three dimensions.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InvalidStructureError(
            f"a crystal is periodic in three dimensions, got pbc={atoms.pbc.tolist()} and a cell "
            f"of rank {atoms.cell.rank}; set atoms.pbc and atoms.cell"
        )
    return Crystal(
        np.asarray(atoms.numbers, dtype=np.int64),
        atoms.get_scaled_positions(wrap=False),
        np.asarray(atoms.cell.cellpar()),
    )


def atoms_from_crystal(crystal: Crystal) -> Atoms:
    """ASE's object of a crystal, with the standard orientation of its cell.

    Raises
    ------
    InvalidStructureError
        If no cell has these angles, as for 120°, 120°, 120°.
    """
    alpha, beta, gamma = np.cos(np.radians(crystal.cellpar[3:]))
    squared = 1 - alpha**2 - beta**2 - gamma**2 + 2 * alpha * beta * gamma
    if squared <= 1e-6:
        raise InvalidStructureError(
            f"no cell has the angles {crystal.cellpar[3:].round(2).tolist()}"
        )
    return Atoms(
        numbers=crystal.numbers,
        scaled_positions=crystal.fractional,
        cell=cellpar_to_cell(crystal.cellpar),
        pbc=True,
    )


def niggli_reduced(atoms: Atoms) -> Atoms:
    """The crystal in its Niggli-reduced cell, standard orientation; needs spglib."""
    reduced = niggli_lattice(atoms.cell.array)
    moved = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=reduced, pbc=True)
    return atoms_from_crystal(crystal_from_atoms(moved))


def encode_atoms(atoms: Atoms, slots: int | None = None, *, reduce: bool = True) -> Array:
    """The UniMat tensor M, (L, 9, 18, 3), of a crystal.

    Parameters
    ----------
    atoms : Atoms
    slots : int, optional
        L; by default the largest number of atoms of one element.
    reduce : bool
        Describe the crystal in its Niggli-reduced cell, which needs spglib; otherwise in its own.
    """
    return encode(crystal_from_atoms(niggli_reduced(atoms) if reduce else atoms), slots)


def decode_atoms(m: Array) -> Atoms:
    """The crystal of a UniMat tensor.

    Raises
    ------
    InvalidStructureError
        If there is no atom in it, or no cell has its angles.
    """
    return atoms_from_crystal(decode(m))
