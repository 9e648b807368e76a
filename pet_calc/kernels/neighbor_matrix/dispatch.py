"""Choice of the implementation."""

from __future__ import annotations

import logging
import math
import os
from importlib.util import find_spec
from typing import Final, Literal

import torch
from torch import Tensor

from pet_calc.geometry import NeighborMatrix
from pet_calc.kernels.neighbor_matrix import reference

_log = logging.getLogger("pet_calc")

Backend = Literal["auto", "torch", "triton"]
Method = Literal["auto", "tiles", "cells"]

#: Slots of an atom up to which one program holds its neighbors.
MOST_SLOTS: Final = 2048
#: Candidates of an atom, in all images, up to which all pairs are tested.
MOST_CANDIDATES: Final = 2**16


def triton_refusal(positions: Tensor, capacity: int) -> str | None:
    """Why the Triton kernels cannot build such a list; None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if positions.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"they run on CUDA devices, not on {positions.device.type}"
    if positions.dtype not in (torch.float32, torch.float64):
        return f"they take positions in float32 or float64, not {positions.dtype}"
    if capacity > MOST_SLOTS:
        return f"they take at most {MOST_SLOTS} slots per atom, not {capacity}"
    return None


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


def neighbor_matrix(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    cutoff: float,
    *,
    capacity: int,
    images: tuple[int, int, int] | None = None,
    backend: Backend = "auto",
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
    backend : {"auto", "torch", "triton"}
        "auto" is torch; with ``PET_CALC_TRITON=1`` in the environment it is the Triton kernels on
        CUDA devices where they can run (the reason why not goes to the logger ``pet_calc``, level
        DEBUG). They have been run in Triton's interpreter and compiled, but on no GPU yet, so
        that they have to be asked for. A backend named here is used or raises.
    method : {"auto", "tiles", "cells"}
        Of the Triton kernels: all pairs, or a list of cells; "auto" goes by the size.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'torch' or 'triton', got {backend!r}")
    if method not in ("auto", "tiles", "cells"):
        raise ValueError(f"`method` must be 'auto', 'tiles' or 'cells', got {method!r}")
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"`cutoff` must be a positive number of Å, got {cutoff}")
    if capacity < 1:
        raise ValueError(f"`capacity` must be at least one slot per atom, got {capacity}")
    if images is None:
        images = reference.image_counts(cell, pbc, cutoff)
    asked = positions.device.type == "cuda" and os.environ.get("PET_CALC_TRITON") == "1"
    if backend == "triton" or (backend == "auto" and asked):
        refusal = triton_refusal(positions, capacity)
        if refusal is None:
            from pet_calc.kernels.neighbor_matrix import triton

            return triton.neighbor_matrix(
                positions, cell, pbc, system_index, cutoff,
                capacity=capacity, images=images,
                method=chosen_method(method, len(positions), len(cell), images),
            )  # fmt: skip
        if backend == "triton":
            raise ValueError(f"the Triton kernels cannot be used: {refusal}")
        _log.debug("neighbor matrix without Triton kernels: %s", refusal)
    return reference.neighbor_matrix(
        positions, cell, pbc, system_index, cutoff, capacity=capacity, images=images
    )
