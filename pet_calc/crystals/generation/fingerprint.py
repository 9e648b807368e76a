"""Pointwise distance distribution of a crystal, to tell duplicates from different structures.

Each atom is described by the sorted distances to its nearest neighbors and their elements
(D. Widdowson and V. Kurlin, NeurIPS 2022, with elements kept apart); the description does not
depend on the choice of the cell, and changes continuously with the structure.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

#: Neighbors of each element that are looked at.
NEIGHBORS: Final = 8

Fingerprint = tuple[NDArray[np.int64], NDArray[np.float64]]


def fingerprint(atoms: Atoms) -> Fingerprint:
    """Element of each atom, and its distances over (V/N)^(1/3), (N, n_elements * NEIGHBORS)."""
    kinds = np.unique(atoms.numbers)
    scale = (atoms.get_volume() / len(atoms)) ** (1 / 3)
    cutoff = 2.5 * scale
    while True:
        i, j, d = primitive_neighbor_list(
            "ijd", atoms.pbc, atoms.cell.array, atoms.positions, cutoff
        )
        counts = np.zeros((len(atoms), len(kinds)), dtype=np.int64)
        of = np.searchsorted(kinds, atoms.numbers)
        np.add.at(counts, (i, of[j]), 1)
        if counts.min() >= NEIGHBORS:
            break
        cutoff *= 1.3
    rows = np.empty((len(atoms), len(kinds), NEIGHBORS))
    for a in range(len(atoms)):
        for k in range(len(kinds)):
            rows[a, k] = np.sort(d[(i == a) & (of[j] == k)])[:NEIGHBORS]
    return np.asarray(atoms.numbers, dtype=np.int64), (rows / scale).reshape(len(atoms), -1)


def distance(first: Fingerprint, second: Fingerprint) -> float:
    """Root mean square difference of distances at the best pairing of atoms, in (V/N)^(1/3).

    Infinite for different compositions. Cells of different size are repeated to the same number of
    atoms.
    """
    repeated = []
    n = np.lcm(len(first[0]), len(second[0]))
    for numbers, rows in (first, second):
        k = n // len(numbers)
        numbers, rows = np.repeat(numbers, k), np.repeat(rows, k, axis=0)
        order = np.argsort(numbers, kind="stable")
        repeated.append((numbers[order], rows[order]))
    (za, a), (zb, b) = repeated
    if not np.array_equal(za, zb):
        return float("inf")
    total = 0.0
    for z in np.unique(za):
        cost = ((a[za == z][:, None] - b[zb == z][None]) ** 2).mean(-1)
        total += cost[linear_sum_assignment(cost)].sum()
    return float(np.sqrt(total / n))


def duplicates(structures: list[Atoms], tolerance: float = 0.02) -> list[int]:
    """For each structure the index of the first one like it, which is its own if it is new."""
    prints = [fingerprint(a) for a in structures]
    first: list[int] = []
    for k, own in enumerate(prints):
        known = (j for j in range(k) if first[j] == j)
        first.append(next((j for j in known if distance(prints[j], own) < tolerance), k))
    return first
