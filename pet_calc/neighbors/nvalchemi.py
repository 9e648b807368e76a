"""Neighbor matrices through nvalchemi-toolkit-ops (NVIDIA, Apache-2.0), an optional package."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from pet_calc.errors import MissingDependencyError
from pet_calc.geometry import NeighborMatrix
from pet_calc.kernels.neighbor_matrix.reference import (
    EMPTY,
    ROUNDING,
    image_shifts,
    matrix_from_keys,
    reciprocal_vectors,
    squared_lengths,
    unsearchable,
    wrapped,
)


def nvalchemi_matrix(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    cutoff: float,
    *,
    capacity: int,
    images: tuple[int, int, int],
) -> NeighborMatrix:
    """All pairs with r < cutoff; see `pet_calc.kernels.neighbor_matrix.reference`.

    The package lists the pairs of wrapped positions within a slightly larger radius, in float64;
    which of them are neighbors is decided here by the formula of the reference.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    """
    try:
        module = importlib.import_module("nvalchemiops.torch.neighbors")
    except ImportError as error:
        raise MissingDependencyError(
            "this neighbor list needs the package nvalchemi-toolkit-ops, which is not installed; "
            'install it with: pip install "pet-calc[nvalchemi]"'
        ) from error
    reciprocal = reciprocal_vectors(cell, pbc)
    x, wrap = wrapped(positions, cell, pbc, system_index, reciprocal)
    starts = torch.searchsorted(
        system_index, torch.arange(len(cell) + 1, device=system_index.device)
    )
    neighbors, count, shifts = module.neighbor_list(
        x,
        cutoff * (1.0 + ROUNDING),
        # free directions get vectors that no image is taken along, but span the cell
        cell=torch.linalg.inv(reciprocal).mT.contiguous(),
        pbc=pbc,
        batch_idx=system_index.to(torch.int32),
        batch_ptr=starts.to(torch.int32),
        max_neighbors=capacity,
    )
    return matrix_from_arrays(
        neighbors, count, shifts, x, wrap, cell, system_index, cutoff, images,
        unsearchable(positions, cell, pbc, reciprocal, cutoff, images),
    )  # fmt: skip


def matrix_from_arrays(
    neighbors: Tensor,
    count: Tensor,
    shifts: Tensor,
    x: Tensor,
    wrap: Tensor,
    cell: Tensor,
    system_index: Tensor,
    cutoff: float,
    images: tuple[int, int, int],
    broken: Tensor,
) -> NeighborMatrix:
    """A list from the padded arrays of the package.

    Parameters
    ----------
    neighbors : Tensor, shape (n_atoms, capacity), int32
        In any order; n_atoms in empty slots.
    count : Tensor, shape (n_atoms,), int32
        True number of neighbors.
    shifts : Tensor, shape (n_atoms, capacity, 3), int32
        T in x_j - x_i + T @ cell.
    x, wrap, system_index, broken
        As of the reference; the arrays are those of the wrapped positions `x`.
    """
    n, capacity = neighbors.shape
    sizes = torch.tensor(images, device=x.device)
    # of the slightly larger radius, what is an image farther than the cutoff can reach
    there = (neighbors < n) & (shifts.abs() <= sizes).all(-1)
    j = torch.where(there, neighbors, 0).to(torch.int64)
    t = torch.where(there[..., None], shifts, 0).to(torch.int64)
    box = cell.detach().to(torch.float64)[system_index][:, None]
    close = squared_lengths(x[j] - x[:, None, :], t, box) < cutoff**2
    key = j
    for a in range(3):
        key = key * (2 * images[a] + 1) + t[..., a] + images[a]
    keys = torch.where(there & close, key, EMPTY).sort(1)[0]
    listed = (there & close).sum(1).to(torch.int32)
    return matrix_from_keys(
        keys,
        torch.where(count > capacity, count, listed),
        wrap,
        image_shifts(images, x.device),
        broken,
    )
