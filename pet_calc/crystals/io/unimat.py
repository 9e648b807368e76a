"""Crystals for UniMat, from tables (``.npz``, ``.npz.xz``) and any file that ASE reads."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.io import read

from pet_calc.crystals.diffusion.unimat import Array, Crystal, decode, encode
from pet_calc.errors import DatasetError, InvalidStructureError, MissingDependencyError
from pet_calc.io.data.crystals import read_table

TABLE = ("n_atoms", "numbers", "frac", "cellpar")


def read_crystals(path: Path | str) -> list[Crystal]:
    """All crystals of a file.

    Parameters
    ----------
    path : Path or str
        A structure file, or a table: ``n_atoms (S,)``, ``numbers (ΣN,)``, ``frac (ΣN, 3)`` and
        ``cellpar (S, 6)`` in Å and degrees, in ``.npz`` or ``.npz.xz``.

    Raises
    ------
    DatasetError
        If the file is absent or holds no crystals.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"there is no file of crystals {path}")
    if path.name.endswith((".npz", ".npz.xz")):
        return _read_table(path)
    try:
        frames = read(path, index=":")
    except Exception as error:  # each of ASE's many readers fails in its own way
        raise DatasetError(
            f"{path} cannot be read as structures ({type(error).__name__}: {error})"
        ) from error
    return [crystal_from_atoms(atoms) for atoms in frames]


def _read_table(path: Path) -> list[Crystal]:
    table = read_table(path)
    n_atoms, numbers, frac, cellpar = (table[name] for name in TABLE)
    ends = np.cumsum(n_atoms, dtype=np.int64)
    return [
        Crystal(
            numbers[end - n : end].astype(np.int64),
            frac[end - n : end].astype(np.float64),
            cellpar[k].astype(np.float64),
        )
        for k, (n, end) in enumerate(zip(n_atoms.astype(np.int64), ends, strict=True))
    ]


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
    try:
        import spglib
    except ImportError as error:
        raise MissingDependencyError(
            'the Niggli-reduced cell needs spglib; pip install "pet-calc[phonons]"'
        ) from error
    with warnings.catch_warnings():
        # spglib 2.7 and later announce another way to report errors; both ways are handled here
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            reduced = spglib.niggli_reduce(atoms.cell.array)
        except Exception as error:  # its class differs between versions of spglib
            raise InvalidStructureError(
                f"spglib finds no Niggli cell of {atoms.cell.cellpar()} ({error})"
            ) from error
    if reduced is None:
        raise InvalidStructureError(f"spglib finds no Niggli cell of {atoms.cell.cellpar()}")
    result = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=reduced, pbc=True)
    crystal = crystal_from_atoms(result)
    return atoms_from_crystal(crystal)


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
