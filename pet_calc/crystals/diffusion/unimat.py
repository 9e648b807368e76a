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

import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet_calc.crystals.diffusion.periodic_table import (
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


def _unimodular() -> NDArray[np.int64]:
    """All integer matrices with entries −1, 0, 1 and determinant ±1, (6960, 3, 3)."""
    entries = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    return entries[np.abs(np.abs(np.linalg.det(entries)) - 1) < 0.5]


def lattice_symmetry(cellpar: Array, tolerance: float = 0.02) -> NDArray[np.int64]:
    """Changes of basis that leave a reduced lattice as it is, (n, 3, 3); the identity is first.

    Fractional coordinates change as x' = W x, the metric as G' = W^-T G W^-1. All of them have
    entries −1, 0, 1 where the cell is reduced. `tolerance` is the change allowed of
    G_ij / (a_i a_j), so that nearly equal lengths count as equal.
    """
    cosines = np.cos(np.radians(cellpar[3:]))
    unit = np.eye(3)
    for (i, j), c in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
        unit[i, j] = unit[j, i] = c
    lengths = np.outer(cellpar[:3], cellpar[:3])
    metric = unit * lengths
    w = _UNIMODULAR
    moved = w.transpose(0, 2, 1) @ metric @ w
    kept = w[(np.abs(moved - metric) / lengths).max((1, 2)) < tolerance]
    identity = (kept == np.eye(3, dtype=np.int64)).all((1, 2))
    return np.concatenate([kept[identity], kept[~identity]])


def rebased(cellpar: Array, w: NDArray[np.int64]) -> Array:
    """Cell parameters after the change of basis W; the same if W is a symmetry of the lattice."""
    a, b, c = cellpar[:3]
    alpha, beta, gamma = np.cos(np.radians(cellpar[3:]))
    metric = np.array(
        [
            [a * a, a * b * gamma, a * c * beta],
            [a * b * gamma, b * b, b * c * alpha],
            [a * c * beta, b * c * alpha, c * c],
        ]
    )
    inverse = np.linalg.inv(w)
    metric = inverse.T @ metric @ inverse
    lengths = np.sqrt(np.diag(metric))
    cosines = [metric[i, j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))])


def canonical(crystal: Crystal) -> Crystal:
    """One description of a crystal out of those that differ by origin and axes.

    An atom of the rarest element is at `ORIGIN`; of equally rare elements that of lowest atomic
    number. Of its atoms, and of the symmetries of the lattice (mirrors included, so that a chiral
    crystal may become its mirror image), those are taken that give the lexicographically first
    list of places.
    """
    numbers = np.asarray(crystal.numbers, dtype=np.int64)
    kinds, counts = np.unique(numbers, return_counts=True)
    rarest = kinds[np.argmin(counts)]
    best: tuple[list[Any], Array, NDArray[np.int64]] | None = None
    for w in lattice_symmetry(crystal.cellpar):
        turned = crystal.fractional @ w.T
        for k in np.flatnonzero(numbers == rarest):
            moved = wrapped(turned - turned[k] + ORIGIN)
            # the sum of floats that ORIGIN is must not move the atom across a rounding
            moved[k] = ORIGIN
            places = moved[order(numbers, moved)].round(ORDER_DECIMALS).ravel().tolist()
            if best is None or places < best[0]:
                best = places, moved, w
    assert best is not None
    index = order(numbers, best[1])
    return Crystal(numbers[index], best[1][index], rebased(crystal.cellpar, best[2]))


_UNIMODULAR: Final = _unimodular()
