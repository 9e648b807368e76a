"""Primitive cells and supercells, all in the orientation in which the structure was given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError
from pet_calc.io.structures.charge_and_spin import charge_and_spin
from pet_calc.workflows.guards import check_structure

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms

IntMatrix = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Primitive:
    """A primitive cell and how it lies in the structure that it came from.

    Attributes
    ----------
    atoms : Atoms
        The primitive cell, with the calculator of the structure.
    given : array, shape (3, 3), integer
        The given lattice vectors in primitive ones: cell = given @ atoms.cell.
    conventional : array, shape (3, 3), integer
        The conventional lattice vectors of the space group in primitive ones.
    spacegroup, number : str, int
        International symbol and number of the space group.
    """

    atoms: Atoms
    given: IntMatrix
    conventional: IntMatrix
    spacegroup: str
    number: int


def find_primitive(atoms: Atoms, symprec: float) -> Primitive:
    """The primitive cell of a crystal; positions and orientation stay as they are.

    Raises
    ------
    InvalidStructureError
        For a structure that is no crystal, or whose symmetry cannot be found.
    """
    import spglib
    from phonopy.structure.cells import get_primitive, get_primitive_matrix_by_centring

    check_crystal(atoms)
    if np.linalg.det(atoms.cell.array) < 0:
        raise InvalidStructureError(
            "lattice vectors must be right-handed for a phonon calculation, but their triple "
            "product is negative; exchange two of them, with the fractional coordinates"
        )
    cell = to_phonopy(atoms)
    lattice: Any = cell.totuple()
    try:
        dataset = spglib.get_symmetry_dataset(lattice, symprec=symprec)
        reason = ""
    except Exception as error:  # its class differs between versions of spglib
        dataset, reason = None, f" ({error})"
    if dataset is None:
        raise InvalidStructureError(
            f"no space group was found within {symprec} Å{reason}; look for atoms on top of each "
            f"other, or change --symprec"
        )
    # columns: primitive and conventional vectors in the given ones
    conventional = np.linalg.inv(dataset.transformation_matrix)
    matrix = conventional @ get_primitive_matrix_by_centring(dataset.international[0])
    small = to_ase(get_primitive(cell, matrix, symprec=symprec))
    small.calc = atoms.calc
    vectors = small.cell.array
    return Primitive(
        atoms=small,
        given=_integers(atoms.cell.array @ np.linalg.inv(vectors)),
        conventional=_integers(conventional.T @ atoms.cell.array @ np.linalg.inv(vectors)),
        spacegroup=str(dataset.international),
        number=int(dataset.number),
    )


def check_crystal(atoms: Atoms) -> None:
    """Refuse what has no phonons in this sense: a molecule, a slab, unequal masses.

    Raises
    ------
    InvalidStructureError
    """
    check_structure(atoms)
    if not atoms.pbc.all():
        raise InvalidStructureError(
            f"phonons of a crystal need periodicity in three dimensions, but the structure has "
            f"pbc={atoms.pbc.tolist()}; set the cell and pbc (a slab: with vacuum), and for a "
            f"molecule use ase.vibrations"
        )
    charge, spin = charge_and_spin(atoms)
    if (charge, spin) != (0, 1):
        raise InvalidStructureError(
            f"phonons come from supercells, of which the charge and the spin multiplicity of one "
            f"cell say nothing, but atoms.info gives {charge:+d} and 2S + 1 = {spin}; delete the "
            f"entries to compute a crystal in the state that the potential takes by default"
        )
    for symbol in set(atoms.symbols):
        masses = atoms.get_masses()[atoms.symbols == symbol]
        if np.ptp(masses) > 1e-6:
            raise InvalidStructureError(
                f"atoms of one element must have one mass, but those of {symbol} have "
                f"{masses.min():g} to {masses.max():g} amu"
            )


def supercell_matrix(
    primitive: Primitive, supercell: tuple[int, ...] | None, min_length: float
) -> IntMatrix:
    """The supercell in primitive lattice vectors: rows of ``matrix @ primitive.cell``.

    Parameters
    ----------
    primitive : Primitive
    supercell : tuple of 3 or 9 int, optional
        Supercell of the structure as given; see `PhononConfig`.
    min_length : float
        Without it: the smallest of the multiples of the conventional cell, and of the equal
        multiples of the primitive cell, whose shortest translation is at least this long, Å.

    Raises
    ------
    ValueError
        For a supercell that is singular, or so small that the bonds to nearest neighbors fold
        onto each other.
    """
    if supercell is None:
        return smallest_supercell(primitive, min_length)
    asked = np.array(supercell, dtype=np.int64)
    asked = np.diag(asked) if asked.size == 3 else asked.reshape(3, 3)
    if round(np.linalg.det(asked)) < 1:
        raise ValueError(
            f"the supercell matrix must have a positive determinant, got {asked.tolist()}"
        )
    matrix = asked @ primitive.given
    length = shortest_translation(matrix @ primitive.atoms.cell.array)
    bond = nearest_neighbor(primitive.atoms)
    if length < 2 * bond - 1e-3:
        raise ValueError(
            f"the supercell is too small: an atom is {length:.2f} Å from its image, less than two "
            f"bonds of {bond:.2f} Å, so that forces of different neighbors add up; take larger "
            f"multiples, or leave the choice to --min-length"
        )
    return matrix


def smallest_supercell(primitive: Primitive, min_length: float) -> IntMatrix:
    """See `supercell_matrix`; multiples that keep the symmetry of the lattice."""
    cell = primitive.atoms.cell.array
    n = 1
    while shortest_translation(n * cell) < min_length:
        n += 1
    best: IntMatrix = n * np.eye(3, dtype=np.int64)
    conventional = primitive.conventional @ cell
    lengths = np.linalg.norm(conventional, axis=1)
    limit = np.ceil(min_length / lengths).astype(int) + 1
    for multiples in itertools.product(*(range(1, k + 1) for k in limit)):
        equal = np.isclose(lengths[:, None], lengths[None, :], rtol=1e-4)
        if any(multiples[i] != multiples[j] for i, j in np.argwhere(equal)):
            continue
        matrix = np.diag(multiples) @ primitive.conventional
        fewer = np.linalg.det(matrix) < np.linalg.det(best) - 0.5
        if fewer and shortest_translation(matrix @ cell) >= min_length:
            best = matrix
    return best


def shortest_translation(cell: Array) -> float:
    """Length of the shortest lattice vector, Å; `cell` (3, 3) holds a basis in its rows."""
    from ase.geometry import minkowski_reduce

    # the shortest vector of a Minkowski-reduced basis is the shortest of the lattice
    reduced, _ = minkowski_reduce(cell)
    return float(np.linalg.norm(reduced, axis=1).min())


def nearest_neighbor(atoms: Atoms) -> float:
    """Distance of the closest pair, periodic images included, Å."""
    shortest = shortest_translation(atoms.cell.array)
    if len(atoms) == 1:
        return shortest
    distances = atoms.get_all_distances(mic=True)
    return min(shortest, float(distances[np.triu_indices(len(atoms), 1)].min()))


def to_phonopy(atoms: Atoms) -> PhonopyAtoms:
    """The structure as phonopy's, with ASE's masses."""
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def to_ase(cell: PhonopyAtoms) -> Atoms:
    """A structure of phonopy as ASE's, periodic."""
    return Atoms(
        numbers=cell.numbers,
        cell=cell.cell,
        scaled_positions=cell.scaled_positions,
        masses=cell.masses,
        pbc=True,
    )


def _integers(matrix: Array) -> IntMatrix:
    rounded = np.rint(matrix)
    if np.abs(matrix - rounded).max() > 1e-2:
        raise InvalidStructureError(
            f"the lattice must be made of whole primitive cells, but the ratio is "
            f"{matrix.round(4).tolist()}; lower --symprec"
        )
    return rounded.astype(np.int64)
