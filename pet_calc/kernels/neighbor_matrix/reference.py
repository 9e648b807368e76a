"""Reference implementation of the neighbor matrix; it defines the operation.

Positions are wrapped into the cell, every pair of atoms is tested in every periodic image within
a block of them, and the shifts are given back for the positions as they were.

Distances are decided in float64, whatever the dtype of the positions, by

    (x_j - x_i) + T_0 a_0 + T_1 a_1 + T_2 a_2,    |...|² < cutoff²

with wrapped positions x, lattice vectors a and T the shift between wrapped atoms, summed in this
order. The expression of the pair (j, i, -T) is the exact negative, so that both directions of an
edge are listed or neither is. Lists from other formulas can differ in pairs whose distance is
within rounding, some 1e-16 of the largest coordinate, of the cutoff, and in no others.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import NeighborMatrix

#: In an empty slot of a row of keys.
EMPTY: Final = torch.iinfo(torch.int64).max
#: Rounding of fractional coordinates, with much room.
ROUNDING: Final = 1e-9


def reciprocal_vectors(cell: Tensor, pbc: Tensor) -> Tensor:
    """Vectors b_a with b_a · a_b = δ_ab, so that x · b_a is the fractional coordinate of x.

    Lattice vectors of free directions are replaced by unit vectors orthogonal to all others.

    Parameters
    ----------
    cell : Tensor, shape (n_systems, 3, 3)
    pbc : Tensor, shape (n_systems, 3), bool

    Returns
    -------
    Tensor, shape (n_systems, 3, 3), float64
        Rows b_a in 1/Å.
    """
    rows = list(cell.detach().to(torch.float64).unbind(1))
    periodic = [p[:, None] for p in pbc.unbind(1)]
    n = pbc.sum(1, keepdim=True)
    axes = torch.eye(3, dtype=torch.float64, device=cell.device)
    # beside a single periodic vector: a second one across it, by the axis that it is farthest from
    single = sum(torch.where(p, row, 0.0) for p, row in zip(periodic, rows, strict=True))
    assert isinstance(single, Tensor)
    across = _unit(torch.linalg.cross(single, axes[single.abs().argmin(1)]))
    one = n == 1
    fill = [one & ~periodic[0], one & periodic[0], torch.zeros_like(one)]
    for a in range(3):
        rows[a] = torch.where(n == 0, axes[a], torch.where(fill[a], across, rows[a]))
    # now at most one is missing
    for a in range(3):
        normal = _unit(torch.linalg.cross(rows[(a + 1) % 3], rows[(a + 2) % 3]))
        rows[a] = torch.where(periodic[a] | fill[a] | (n == 0), rows[a], normal)
    normals = [torch.linalg.cross(rows[(a + 1) % 3], rows[(a + 2) % 3]) for a in range(3)]
    determinant = (rows[0] * normals[0]).sum(1)
    return torch.stack(normals, 1) / determinant[:, None, None]


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum(-1, keepdim=True).sqrt()


def image_counts(cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[int, int, int]:
    """Images to search on either side in each direction; the host waits for the device here.

    With wrapped atoms |T_a| < r |b_a| + 1. Free directions need none. A batch takes the most that
    one of its systems needs. For a cell that may shrink, ask with a larger cutoff.

    Raises
    ------
    InvalidStructureError
        For periodic directions that the lattice vectors do not span.
    """
    cell, pbc = cell.detach().cpu(), pbc.cpu()
    spans = cutoff * reciprocal_vectors(cell, pbc).square().sum(-1).sqrt()
    needed = torch.where(pbc, 1.0 + torch.floor(spans + ROUNDING), 0.0)
    if not torch.isfinite(needed).all():
        raise InvalidStructureError(
            "the lattice vectors of periodic directions must be finite and linearly independent, "
            f"got the cell(s) {cell.tolist()} with pbc={pbc.tolist()}; set the cell or turn the "
            "periodicity off"
        )
    a, b, c = needed.amax(0).tolist()
    return int(a), int(b), int(c)


def neighbor_matrix(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    cutoff: float,
    *,
    capacity: int,
    images: tuple[int, int, int],
) -> NeighborMatrix:
    """All pairs with r < cutoff in fixed shapes; nothing waits for the device.

    Memory is that of all pairs of atoms in all images: meant for a thousand atoms at most.

    Parameters
    ----------
    positions : Tensor, shape (n_atoms, 3), float32 or float64
        In Å, unwrapped as given.
    cell : Tensor, shape (n_systems, 3, 3)
        Rows are lattice vectors in Å; may be left-handed; those of free directions are ignored.
    pbc : Tensor, shape (n_systems, 3), bool
    system_index : Tensor, shape (n_atoms,), int64
        Non-decreasing.
    cutoff : float
        In Å.
    capacity : int
        Slots of an atom.
    images : three int
        From `image_counts`. If the cell needs more, the result says that it has overflowed.
    """
    n, device = len(positions), positions.device
    index = system_index
    box = cell.detach().to(torch.float64)[index]
    reciprocal = reciprocal_vectors(cell, pbc)
    x, wrap = wrapped(positions, cell, pbc, index, reciprocal)

    shifts = image_shifts(images, device)
    n_images = len(shifts)
    between = (x[None, :, :] - x[:, None, :])[:, :, None, :]
    squared = squared_lengths(between, shifts, box[:, None, None])
    allowed = ((shifts == 0) | pbc[:, None, :]).all(-1)[index]
    close = (squared < cutoff**2) & (index[:, None] == index[None, :])[:, :, None]
    itself = torch.eye(n, dtype=torch.bool, device=device)[:, :, None] & (shifts == 0).all(-1)
    hit = (close & allowed[:, None, :] & ~itself).reshape(n, n * n_images)

    # the columns of `hit` are sorted by neighbor, then shift: they are the keys of a row
    place = torch.cumsum(hit, 1) - 1
    slot = torch.where(hit & (place < capacity), place, capacity)
    columns = torch.arange(n * n_images, device=device).expand_as(slot)
    keys = torch.full((n, capacity + 1), EMPTY, device=device).scatter(1, slot, columns)
    count = hit.sum(1).to(torch.int32)
    broken = unsearchable(positions, cell, pbc, reciprocal, cutoff, images)
    return matrix_from_keys(keys[:, :capacity], count, wrap, shifts, broken)


def unsearchable(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    reciprocal: Tensor,
    cutoff: float,
    images: tuple[int, int, int],
) -> Tensor:
    """Whether the images do not suffice, or positions or cell are not finite; () bool."""
    spans = cutoff * reciprocal.square().sum(-1).sqrt()
    enough = spans + ROUNDING < torch.stack([torch.full_like(spans[:, 0], k) for k in images], 1)
    finite = torch.isfinite(positions).all() & torch.isfinite(cell).all()
    return (pbc & ~enough).any() | ~finite


def wrapped(
    positions: Tensor, cell: Tensor, pbc: Tensor, system_index: Tensor, reciprocal: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions (n_atoms, 3) within the cell, float64, and the lattice vectors taken off, int32."""
    x = positions.detach().to(torch.float64)
    box = cell.detach().to(torch.float64)[system_index]
    fractional = (x[:, None, :] * reciprocal[system_index]).sum(-1)
    wrap = torch.where(pbc[system_index], torch.floor(fractional), 0.0)
    for a in range(3):
        x = x - wrap[:, a, None] * box[:, a]
    return x, wrap.to(torch.int32)


def image_shifts(images: tuple[int, int, int], device: torch.device) -> Tensor:
    """Shifts (n_images, 3) of the block, in lexicographic order: k is minus the k-th from last."""
    return torch.cartesian_prod(*(torch.arange(-k, k + 1, device=device) for k in images))


def squared_lengths(between: Tensor, shift: Tensor, box: Tensor) -> Tensor:
    """Squares of x_j - x_i, (..., 3), plus shifts (..., 3) in a box (..., 3, 3), in Å²."""
    squared: Tensor | float = 0.0
    for axis in range(3):
        d = between[..., axis]
        for a in range(3):
            d = d + shift[..., a] * box[..., a, axis]
        squared = squared + d * d
    assert isinstance(squared, Tensor)
    return squared


def matrix_from_keys(
    keys: Tensor, count: Tensor, wrap: Tensor, shifts: Tensor, broken: Tensor
) -> NeighborMatrix:
    """The list from its sorted keys.

    Parameters
    ----------
    keys : Tensor, shape (N, M), int64
        Neighbor times the number of images plus the image; `EMPTY` in empty slots.
    count : Tensor, shape (N,), int32
    wrap : Tensor, shape (N, 3), int32
        Lattice vectors that were taken off each position.
    shifts : Tensor, shape (n_images, 3), int64
        Of `image_shifts`.
    broken : Tensor, shape (), bool
        Whether the list is wrong for other reasons than its capacity.
    """
    n, capacity = keys.shape
    n_images = len(shifts)
    there = keys < EMPTY
    neighbor = torch.where(there, keys // n_images, n)
    image = torch.where(there, keys % n_images, 0)
    j = torch.where(there, neighbor, 0)
    own = torch.arange(n, device=keys.device)[:, None]
    total = shifts[image].to(torch.int32) + wrap[:, None, :] - wrap[j]
    # one ascending number per slot, row after row, in which the reverse edge is looked up
    row = n * n_images + 1
    ascending = (own * row + keys.clamp_max(n * n_images)).reshape(-1)
    wanted = j * row + own * n_images + (n_images - 1 - image)
    partner = torch.searchsorted(ascending, wanted).clamp_max(max(n * capacity - 1, 0))
    itself = torch.arange(n * capacity, device=keys.device).reshape(n, capacity)
    match = there & (ascending[partner] == wanted)
    return NeighborMatrix(
        neighbors=neighbor.to(torch.int32),
        shifts=torch.where(there[..., None], total, 0),
        count=count,
        reverse=torch.where(match, partner, itself),
        overflow=(count > capacity).any() | broken,
    )


def images_of(images: tuple[int, int, int]) -> int:
    """Number of images in the block."""
    return math.prod(2 * k + 1 for k in images)
