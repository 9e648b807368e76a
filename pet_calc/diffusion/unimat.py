"""The UniMat representation: crystal <-> tensor M of shape (L, 9, 18, 3).

S. Yang et al., "Scalable diffusion for materials generation", ICLR 2024. ``M[l, h, w]`` is the
location, in fractional coordinates, of the l-th atom of the element in row h and column w of the
periodic table; an absent atom is at the null location (−1, −1, −1). Here two cells of the table
that no element has carry the lattice, in slot l = 0 (their other slots are null):

* lengths: 1/2 + (log(length / N^(1/3)) − LOG_LENGTH) / (2 LOG_LENGTH_WIDTH), N atoms per cell,
* angles: 1/2 + (angle − 90°) / (2 ANGLE_WIDTH),

so that all entries of a crystal are of order one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet_calc.diffusion.periodic_table import (
    ANGLES_PLACE,
    LENGTHS_PLACE,
    N_COLUMNS,
    N_ROWS,
    NUMBERS,
    PLACES,
)
from pet_calc.errors import InvalidStructureError

Array = NDArray[np.float64]

NULL: Final = -1.0
#: An entry is an atom if the mean of its coordinates is above this, half way to the origin.
NULL_BELOW: Final = -0.5
LOG_LENGTH: Final = 1.0
LOG_LENGTH_WIDTH: Final = 0.25
ANGLE_WIDTH: Final = 18.0
#: Where `canonical` puts the atom at the origin: special positions stay clear of the cell's edge.
ORIGIN: Final = 0.1
#: Coordinates that differ by less are in one place when equal atoms are put in order.
ORDER_DECIMALS: Final = 2


@dataclass(frozen=True, eq=False)
class Crystal:
    """A crystal in fractional coordinates.

    Attributes
    ----------
    numbers : (N,) int array
        Atomic numbers.
    fractional : (N, 3) array
        Fractional coordinates.
    cellpar : (6,) array
        Lengths in Å, angles in degrees.
    """

    numbers: NDArray[np.int64]
    fractional: Array
    cellpar: Array

    def __post_init__(self) -> None:
        n = len(self.numbers)
        if n == 0 or self.fractional.shape != (n, 3) or self.cellpar.shape != (6,):
            raise InvalidStructureError(
                f"a crystal has N > 0 atoms, (N, 3) coordinates and 6 cell parameters, got "
                f"{self.numbers.shape}, {self.fractional.shape} and {self.cellpar.shape}"
            )
        if not (np.isfinite(self.fractional).all() and np.isfinite(self.cellpar).all()):
            raise InvalidStructureError("coordinates and cell of a crystal must be finite numbers")
        if not (
            (self.cellpar[:3] > 0).all()
            and ((self.cellpar[3:] > 0) & (self.cellpar[3:] < 180)).all()
        ):
            raise InvalidStructureError(
                f"a cell has positive lengths and angles between 0° and 180°, got {self.cellpar}"
            )


def wrapped(fractional: Array) -> Array:
    """Fractional coordinates in [0, 1)."""
    inside = fractional - np.floor(fractional)
    # −1e-20 is rounded to 1
    return np.where(inside >= 1.0, 0.0, inside)


def order(numbers: NDArray[np.int64], fractional: Array) -> NDArray[np.int64]:
    """Indices that sort atoms by element, then by place; the same for any order of equal atoms."""
    rounded = fractional.round(ORDER_DECIMALS)
    keys = (*fractional.T[::-1], *rounded.T[::-1], numbers)
    return np.lexsort(keys)


def slots_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each atom among those of its element, in the order given."""
    slots = np.zeros(len(numbers), dtype=np.int64)
    for z in np.unique(numbers):
        same = numbers == z
        slots[same] = np.arange(same.sum())
    return slots


def lattice_entries(cellpar: Array, n_atoms: int) -> tuple[Array, Array]:
    """Entries of M for lengths and angles, (3,) each; see the equations of this module."""
    lengths = np.log(cellpar[:3] / n_atoms ** (1 / 3))
    return (
        0.5 + 0.5 * (lengths - LOG_LENGTH) / LOG_LENGTH_WIDTH,
        0.5 + 0.5 * (cellpar[3:] - 90.0) / ANGLE_WIDTH,
    )


def cell_parameters(lengths: Array, angles: Array, n_atoms: int) -> Array:
    """Inverse of `lattice_entries`: (6,) Å and degrees."""
    logs = LOG_LENGTH + 2 * LOG_LENGTH_WIDTH * (lengths - 0.5)
    return np.concatenate(
        [np.exp(logs) * n_atoms ** (1 / 3), 90.0 + 2 * ANGLE_WIDTH * (angles - 0.5)]
    )


def encode(crystal: Crystal, slots: int | None = None) -> Array:
    """The tensor M of a crystal.

    Parameters
    ----------
    crystal : Crystal
    slots : int, optional
        L; by default the largest number of atoms of one element.

    Returns
    -------
    (L, 9, 18, 3) array

    Raises
    ------
    ValueError
        If an element has more atoms than slots, or is not one of the 118.
    """
    numbers = np.asarray(crystal.numbers, dtype=np.int64)
    if numbers.min() < 1 or numbers.max() >= len(PLACES):
        raise ValueError(f"atomic numbers are 1 to {len(PLACES) - 1}, got {set(numbers.tolist())}")
    most = int(np.bincount(numbers).max())
    slots = most if slots is None else slots
    if slots < most:
        raise ValueError(f"{most} atoms of one element need as many slots, got {slots}")
    fractional = wrapped(crystal.fractional)
    index = order(numbers, fractional)
    numbers, fractional = numbers[index], fractional[index]
    m = np.full((slots, N_ROWS, N_COLUMNS, 3), NULL)
    m[slots_of(numbers), PLACES[numbers, 0], PLACES[numbers, 1]] = fractional
    m[0][LENGTHS_PLACE], m[0][ANGLES_PLACE] = lattice_entries(crystal.cellpar, len(numbers))
    return m


def decode(m: Array) -> Crystal:
    """The crystal of a tensor M, its atoms by atomic number and slot.

    Raises
    ------
    InvalidStructureError
        If no atom is left, or the lattice is none.
    """
    if m.ndim != 4 or m.shape[1:] != (N_ROWS, N_COLUMNS, 3):
        raise ValueError(f"M has the shape (L, {N_ROWS}, {N_COLUMNS}, 3), got {m.shape}")
    occupied = (m.mean(-1) > NULL_BELOW) & (NUMBERS > 0)
    slot, row, column = np.nonzero(occupied)
    if not len(slot):
        raise InvalidStructureError("every entry of M is at the null location: there is no atom")
    numbers = NUMBERS[row, column]
    index = np.lexsort((slot, numbers))
    cellpar = cell_parameters(m[0][LENGTHS_PLACE], m[0][ANGLES_PLACE], len(numbers))
    fractional = wrapped(m[slot, row, column][index])
    return Crystal(numbers[index], fractional, cellpar)


def canonical(crystal: Crystal) -> Crystal:
    """The crystal moved so that an atom of its rarest element is at `ORIGIN`.

    Of equally rare elements the one of lowest atomic number is taken; of its atoms the one that
    gives the lexicographically first list of places. Two descriptions of one crystal that differ
    by a translation become one.
    """
    numbers = np.asarray(crystal.numbers, dtype=np.int64)
    kinds, counts = np.unique(numbers, return_counts=True)
    rarest = kinds[np.argmin(counts)]
    best: tuple[list[Any], Array] | None = None
    for k in np.flatnonzero(numbers == rarest):
        moved = wrapped(crystal.fractional - crystal.fractional[k] + ORIGIN)
        # the sum of floats that ORIGIN is must not move the atom across a rounding
        moved[k] = ORIGIN
        places = moved[order(numbers, moved)].round(ORDER_DECIMALS).ravel().tolist()
        if best is None or places < best[0]:
            best = places, moved
    assert best is not None
    index = order(numbers, best[1])
    return Crystal(numbers[index], best[1][index], crystal.cellpar)
