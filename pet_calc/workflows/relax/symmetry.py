"""Space groups of structures, and the constraint that keeps one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ase import Atoms

from pet_calc.errors import InvalidStructureError, MissingDependencyError


def symmetry_available() -> bool:
    """Whether spglib, which finds space groups, is installed."""
    return find_spec("spglib") is not None


def require_spglib(purpose: str) -> None:
    """Raise with the way to install spglib if it is absent.

    Raises
    ------
    MissingDependencyError
    """
    if not symmetry_available():
        raise MissingDependencyError(f'{purpose} needs spglib; pip install "pet-calc[phonons]"')


def find_symmetry(atoms: Atoms, symprec: float) -> Any:
    """Symmetry of a crystal as spglib gives it: space group, operations, mapping of atoms.

    Parameters
    ----------
    atoms : Atoms
        Periodic in three dimensions; magnetic moments are not looked at.
    symprec : float
        Distance in Å within which atoms count as equivalent.

    Raises
    ------
    InvalidStructureError
        If spglib finds no symmetry, as for overlapping atoms.
    MissingDependencyError
        If spglib is not installed.
    """
    require_spglib("the space group of a structure")
    from ase.spacegroup.symmetrize import check_symmetry

    if not atoms.pbc.all():
        raise InvalidStructureError(
            f"a space group needs periodicity in three dimensions, but the structure has "
            f"pbc={atoms.pbc.tolist()}"
        )
    try:
        return check_symmetry(atoms, symprec=symprec)
    except Exception as error:  # spglib's errors have no common public base
        raise InvalidStructureError(
            f"no space group was found within {symprec:g} Å ({error}); look for atoms that are "
            "there twice, or change the tolerance"
        ) from error


def space_group(atoms: Atoms, symprec: float) -> str:
    """Space group as ``Fm-3m (225)``; empty without three-dimensional periodicity or spglib."""
    if not symmetry_available() or not atoms.pbc.all():
        return ""
    try:
        found = find_symmetry(atoms, symprec)
    except InvalidStructureError:
        # a report of a geometry, which may be one that a guard stopped
        return "none"
    return f"{found.international} ({found.number})"


def fix_symmetry(atoms: Atoms, symprec: float) -> None:
    """Impose on `atoms` the space group found within `symprec` Å, and keep it by a constraint.

    Raises
    ------
    InvalidStructureError
        For a structure without three-dimensional periodicity or a space group.
    MissingDependencyError
        If spglib is not installed.
    """
    from ase.constraints import FixSymmetry

    find_symmetry(atoms, symprec)
    atoms.set_constraint([*atoms.constraints, FixSymmetry(atoms, symprec=symprec)])
