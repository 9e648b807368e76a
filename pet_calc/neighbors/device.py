"""Neighbor lists that are built on the device that holds the system."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final, Literal

import torch

from pet_calc.geometry import Edges, NeighborMatrix, System, edge_vectors
from pet_calc.kernels.neighbor_matrix import (
    chosen_method,
    image_counts,
    neighbor_matrix,
    triton_refusal,
)
from pet_calc.neighbors.nvalchemi import nvalchemi_matrix

_log = logging.getLogger("pet_calc")

Provider = Literal["triton", "nvalchemi"]

#: Slots of an atom that a list is built with first.
FIRST_CAPACITY: Final = 64
#: Capacities are multiples of this.
CAPACITY_STEP: Final = 16

# what the check at first use has found, by device, type and method
_checked: dict[tuple[object, ...], str | None] = {}


class KernelsRefuse(ValueError):
    """The Triton kernels cannot build this list."""


def grown_matrix(
    system: System, cutoff: float, images: tuple[int, int, int], provider: Provider
) -> NeighborMatrix | None:
    """A complete list, with as many slots as are needed; `images` are those of `image_counts`.

    The host waits for the device. None if positions are not finite.

    Raises
    ------
    KernelsRefuse
        If the Triton kernels cannot be used, or not with as many slots.
    MissingDependencyError
        Without the package nvalchemi-toolkit-ops, for "nvalchemi".
    """
    capacity = FIRST_CAPACITY
    arguments = (system.positions, system.cell, system.pbc, system.system_index, cutoff)
    while True:
        if provider == "triton":
            if (refusal := triton_refusal(system.positions, capacity)) is not None:
                raise KernelsRefuse(f"the Triton kernels cannot be used: {refusal}")
            found = neighbor_matrix(*arguments, capacity=capacity, images=images, backend="triton")
        else:
            found = nvalchemi_matrix(*arguments, capacity=capacity, images=images)
        if not bool(found.overflow):
            return found
        most = int(found.count.max())
        if most <= capacity:
            return None
        capacity = -(-most // CAPACITY_STEP) * CAPACITY_STEP


def device_edges(system: System, cutoff: float, provider: Provider) -> Edges | None:
    """All pairs from one provider; None if positions are not finite. See `grown_matrix`."""
    images = image_counts(system.cell, system.pbc, cutoff)
    found = grown_matrix(system, cutoff, images, provider)
    return None if found is None else found.to_edges()


def kernels_wanted(system: System) -> bool:
    """Whether the Triton kernels are asked for and can run where the system is."""
    if system.device.type != "cuda" or os.environ.get("PET_CALC_TRITON") != "1":
        return False
    if (refusal := triton_refusal(system.positions, FIRST_CAPACITY)) is not None:
        _log.debug("neighbor list on the CPU: %s", refusal)
        return False
    return True


def checked_edges(
    system: System, cutoff: float, reference: Callable[[System, float], Edges]
) -> Edges | None:
    """All pairs from the Triton kernels, if they agree with the reference.

    The first list of a kind is compared with that of the reference; if it differs, a warning goes
    to the logger ``pet_calc``, and the kernels are not used again. None tells to use the
    reference.
    """
    # the kernel of small systems and that of large ones are compared each
    images = image_counts(system.cell, system.pbc, cutoff)
    method = chosen_method("auto", system.n_atoms, system.n_systems, images)
    key = (system.device, system.positions.dtype, method)
    if _checked.get(key) is not None:
        return None
    try:
        edges = device_edges(system, cutoff, "triton")
        if key in _checked:
            return edges
        difference = None if edges is None else deviation(system, cutoff, edges, reference)
    except KernelsRefuse as error:
        _log.debug("neighbor list on the CPU: %s", error)
        return None
    except Exception as error:  # a compiler that fails has many names for it
        if key in _checked:
            raise
        edges, difference = None, f"{type(error).__name__}: {error}"
    if edges is not None or difference is not None:
        _checked[key] = difference
    if difference is not None:
        _log.warning("the neighbor list falls back to vesin on the CPU: %s", difference)
        return None
    return edges


def deviation(
    system: System, cutoff: float, found: Edges, reference: Callable[[System, float], Edges]
) -> str | None:
    """How a list differs from that of the reference; None if it agrees.

    Pairs whose distance is within rounding of the cutoff may be in one of them alone.
    """
    expected = reference(system, cutoff)
    largest = float(system.positions.detach().abs().max()) if system.n_atoms else 0.0
    precision = 2.0**-22 if system.positions.dtype == torch.float32 else 2.0**-50
    tolerance = precision * (cutoff + largest)
    parts = []
    for edges in (found, expected):
        distances = edge_vectors(system, edges).detach().norm(dim=1)
        if (distances > cutoff + tolerance).any():
            return f"a pair is listed at {float(distances.max())} Å, beyond {cutoff} Å"
        parts.append(edges.select(distances < cutoff - tolerance))
    mine, theirs = parts
    if mine.n_edges != theirs.n_edges:
        return f"it has {mine.n_edges} edges, vesin has {theirs.n_edges}"
    same = (
        torch.equal(mine.edge_index, theirs.edge_index)
        and torch.equal(mine.cell_shifts, theirs.cell_shifts)
        and torch.equal(mine.reverse_edge, theirs.reverse_edge)
    )
    return None if same else "its edges are not those of vesin"
