"""Half neighbour list of one structure through vesin (Fraux et al., BSD-3-Clause)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList


def vesin_half_list(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (i, j, S) with r < cutoff, each unordered pair once.

    Returns
    -------
    i, j : arrays, shape (n_pairs,), int64
    shifts : array, shape (n_pairs, 3), int64
        S in r_ij = r_j - r_i + S @ cell.
    """
    box = complete_cell(cell, pbc)
    i, j, shifts = NeighborList(cutoff=cutoff, full_list=False).compute(
        points=np.ascontiguousarray(positions),
        box=box,
        periodic=np.ascontiguousarray(pbc),
        quantities="ijS",
    )
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64)


def complete_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace the lattice vectors of free directions by unit vectors orthogonal to the rest.

    The list does not depend on them, but the box has to be invertible.
    """
    if pbc.all():
        return np.ascontiguousarray(cell)
    box = np.array(cell)
    kept = cell[pbc]
    # the right singular vectors beyond the rank span the free directions
    free = np.linalg.svd(kept, full_matrices=True)[2][len(kept) :] if len(kept) else np.eye(3)
    box[~pbc] = free
    return box
