"""A neighbor list of fixed shapes, built where the positions are."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import torch
from torch import Tensor

from pet_calc.geometry import NeighborMatrix
from pet_calc.kernels.neighbor_matrix import reference
from pet_calc.kernels.neighbor_matrix.reference import image_counts
from pet_calc.kernels.operation import Kernels, beyond, operation

__all__ = ["Method", "chosen_method", "image_counts", "matrix_operation", "neighbor_matrix"]

Method = Literal["auto", "tiles", "cells"]

#: Slots of an atom up to which one program holds its neighbors.
MOST_SLOTS: Final = 2048
#: Candidates of an atom, in all images, up to which all pairs are tested.
MOST_CANDIDATES: Final = 2**16


def chosen_method(
    method: Method, n_atoms: int, n_systems: int, images: tuple[int, int, int]
) -> Method:
    """Tiles or cells, by the candidates of an atom in a batch of systems of one size."""
    candidates = n_atoms * reference.images_of(images)
    if method == "auto":
        return "tiles" if candidates <= MOST_CANDIDATES * max(n_systems, 1) else "cells"
    if method == "tiles" and candidates >= 2**31:
        raise ValueError(
            f"all pairs are tested among fewer than 2^31 candidates per atom, not {candidates}; "
            'choose `method="cells"`'
        )
    return method


def limit(*_: Any, capacity: int, **__: Any) -> str | None:
    """Why the Triton kernels cannot build such a list; None if they can."""
    return beyond(MOST_SLOTS, capacity, "slots per atom")


@operation(
    "neighbor list",
    "pet_calc.kernels.neighbor_matrix.triton:neighbor_matrix",
    limit,
    (torch.float32, torch.float64),
)
def matrix_operation(
    positions: Tensor, cell: Tensor, pbc: Tensor, system_index: Tensor, cutoff: float,
    *, capacity: int, images: tuple[int, int, int], method: Method,
) -> NeighborMatrix:  # fmt: skip
    """As `neighbor_matrix`, of arguments that were checked."""
    return reference.neighbor_matrix(
        positions, cell, pbc, system_index, cutoff, capacity=capacity, images=images
    )


def neighbor_matrix(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    cutoff: float,
    *,
    capacity: int,
    images: tuple[int, int, int] | None = None,
    backend: Kernels = "auto",
    method: Method = "auto",
) -> NeighborMatrix:
    """All pairs with r < cutoff, in shapes that depend on `capacity` alone; see the reference.

    Parameters
    ----------
    positions, cell, pbc, system_index, cutoff, capacity
        As of the reference.
    images : three int, or None
        From `image_counts`. None asks for it, whereby the host waits for the device: within a
        CUDA graph it has to be given.
    backend : {"auto", "reference", "triton"}
        By default what is in force (`pet_calc.kernels.operation`). A backend named here is used or
        raises.
    method : {"auto", "tiles", "cells"}
        Of the Triton kernels: all pairs, or a list of cells; "auto" goes by the size.
    """
    if method not in ("auto", "tiles", "cells"):
        raise ValueError(f"`method` must be 'auto', 'tiles' or 'cells', got {method!r}")
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"`cutoff` must be a positive number of Å, got {cutoff}")
    if capacity < 1:
        raise ValueError(f"`capacity` must be at least one slot per atom, got {capacity}")
    if images is None:
        images = image_counts(cell, pbc, cutoff)
    return matrix_operation.by(
        backend, positions, cell, pbc, system_index, cutoff,
        capacity=capacity, images=images,
        method=chosen_method(method, len(positions), len(cell), images),
    )  # fmt: skip
