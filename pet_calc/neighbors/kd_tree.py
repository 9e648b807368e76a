"""Half neighbor list of one structure through a k-d tree, for boxes that are mostly empty.

Its cost depends on the atoms alone, not on the size of the box that they are in.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def kd_tree_half_list(
    positions: NDArray[np.float64],
    box: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (i, j, S) with r < cutoff, each unordered pair once, as `vesin_half_list` gives them.

    Parameters
    ----------
    positions : array, shape (n_atoms, 3)
        In Å.
    box : array, shape (3, 3)
        Invertible; the rows of periodic directions are lattice vectors.
    pbc : array, shape (3,)
    cutoff : float
        In Å.
    """
    n = len(positions)
    inverse = np.linalg.inv(box)
    fractional = positions @ inverse
    wrap = np.where(pbc, np.floor(fractional), 0.0).astype(np.int64)
    fractional -= wrap
    # a plane of lattice points is 1 / |row of the reciprocal box| away from the next
    reach = np.where(pbc, cutoff * np.linalg.norm(inverse, axis=0), 0.0)
    sites, images = [np.arange(n)], [np.zeros((n, 3), dtype=np.int64)]
    for shift in itertools.product(*(range(-k, k + 1) for k in np.ceil(reach).astype(int))):
        if shift == (0, 0, 0):
            continue
        moved = fractional + shift
        near = np.where(pbc, (moved >= -reach) & (moved <= 1 + reach), True).all(axis=1)
        sites.append(np.flatnonzero(near))
        images.append(np.tile(np.array(shift, dtype=np.int64), (int(near.sum()), 1)))
    site, image = np.concatenate(sites), np.concatenate(images)
    found = cKDTree(fractional @ box).sparse_distance_matrix(
        cKDTree((fractional[site] + image) @ box), cutoff, output_type="ndarray"
    )
    i, place = found["i"].astype(np.int64), found["j"].astype(np.int64)
    j, shifts = site[place], image[place]
    # of an atom and its own images, the half with the first of S that is not zero positive
    order = np.sign(shifts) @ np.array([9, 3, 1])
    keep = (found["v"] < cutoff) & ((i < j) | ((i == j) & (order > 0)))
    i, j, shifts = i[keep], j[keep], shifts[keep]
    # back from the wrapped atoms to those that were given
    return i, j, shifts + wrap[i] - wrap[j]
