"""Half neighbor list of one structure through vesin (Fraux et al., BSD-3-Clause)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from pet_calc.neighbors.kd_tree import kd_tree_half_list

# of vesin's grid
_MOST_CELLS: Final = 1e5


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
    if not vesin_suits(positions, box, pbc, cutoff):
        return kd_tree_half_list(positions, box, pbc, cutoff)
    i, j, shifts = NeighborList(cutoff=cutoff, full_list=False).compute(
        points=np.ascontiguousarray(positions),
        box=box,
        periodic=np.ascontiguousarray(pbc),
        quantities="ijS",
    )
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64)


def vesin_suits(
    positions: NDArray[np.float64],
    box: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
) -> bool:
    """Whether vesin's grid of cells, of one cutoff each, suits these atoms.

    Beyond 10⁵ cells vesin coarsens its grid in proportion, and rounds down. In a box that is
    longer than wide by orders of magnitude (a molecule that has drifted far away will do) that
    leaves none across, and a division by zero which ends the process [vesin 0.6.2,
    src/cpu_cell_list.cpp, the constructor of CellList]. Grids that are nearly empty can take it
    half a minute for two atoms.
    """
    inverse = np.linalg.inv(box)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    # without periodicity vesin takes the box that bounds the atoms
    heights = np.where(pbc, heights, heights * np.ptp(positions @ inverse, axis=0))
    cells = np.maximum(np.trunc(heights / cutoff), 1.0)
    if cells.prod() <= 0.5 * _MOST_CELLS:
        return True
    if cells.prod() > 10 * len(positions):
        return False
    coarse_z = np.trunc(np.cbrt(_MOST_CELLS * cells[1] / cells[0] * (cells[2] / cells[1]) ** 2))
    coarse_y = np.trunc(coarse_z * cells[1] / cells[2])
    coarse_x = np.trunc(coarse_y * cells[0] / cells[1])
    # with a margin, as the bounds that vesin takes may differ a little from these
    return bool(min(coarse_x, coarse_y, coarse_z) >= 2)


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
