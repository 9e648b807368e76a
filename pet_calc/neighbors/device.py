"""Neighbor lists that are built on the device that holds the system."""

from __future__ import annotations

import logging
from typing import Final, Literal

import torch

from pet_calc.geometry import Edges, NeighborMatrix, System, edge_vectors
from pet_calc.kernels.neighbor_matrix import (
    MOST_SLOTS,
    chosen_method,
    image_counts,
    matrix_operation,
    neighbor_matrix,
)
from pet_calc.kernels.operation import beyond, discard, use
from pet_calc.neighbors.nvalchemi import nvalchemi_matrix

_log = logging.getLogger("pet_calc")

Provider = Literal["triton", "nvalchemi"]

#: Slots of an atom that a list is built with first.
FIRST_CAPACITY: Final = 64
#: Capacities are multiples of this.
CAPACITY_STEP: Final = 16


class TooManySlots(ValueError):
    """An atom has more neighbors than the Triton kernels take."""


def grown_matrix(
    system: System, cutoff: float, images: tuple[int, int, int], provider: Provider
) -> NeighborMatrix | None:
    """A complete list, with as many slots as are needed; `images` are those of `image_counts`.

    The host waits for the device. None if positions are not finite.

    Raises
    ------
    ValueError
        If the Triton kernels cannot be used.
    TooManySlots
        If they cannot be used with as many slots.
    MissingDependencyError
        Without the package nvalchemi-toolkit-ops, for "nvalchemi".
    """
    capacity = FIRST_CAPACITY
    arguments = (system.positions, system.cell, system.pbc, system.system_index, cutoff)
    while True:
        if provider == "triton":
            if (reason := beyond(MOST_SLOTS, capacity, "slots per atom")) is not None:
                raise TooManySlots(f"the Triton kernels cannot be used: {reason}")
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


def triton_selected(system: System) -> bool:
    """Whether lists of a system are built by the Triton kernels that are in force."""
    return matrix_operation.selected and matrix_operation.unsuited(system.positions) is None


def triton_edges(system: System, cutoff: float) -> Edges | None:
    """All pairs from the Triton kernels, whose use is noted; None if they cannot build the list.

    The kernels of small systems and those of large ones have names, and verdicts, of their own.
    """
    images = image_counts(system.cell, system.pbc, cutoff)
    method = chosen_method("auto", system.n_atoms, system.n_systems, images)
    name = f"{matrix_operation.name} ({method})"
    if not use(name):
        return None
    try:
        found = grown_matrix(system, cutoff, images, "triton")
    except TooManySlots as error:
        _log.debug("neighbor list on the CPU: %s", error)
        found = None
    if found is None:
        discard(name)
        return None
    return found.to_edges()


def difference(system: System, cutoff: float, found: Edges, reference: Edges) -> str | None:
    """How a list differs from that of the reference; None if it agrees.

    Pairs whose distance is within rounding of the cutoff may be in one of them alone.
    """
    largest = float(system.positions.detach().abs().max()) if system.n_atoms else 0.0
    precision = 2.0**-22 if system.positions.dtype == torch.float32 else 2.0**-50
    tolerance = precision * (cutoff + largest)
    parts = []
    for edges in (found, reference):
        distances = edge_vectors(system, edges).detach().norm(dim=1)
        if (distances > cutoff + tolerance).any():
            return f"a pair is listed at {float(distances.max())} Å, beyond {cutoff} Å"
        parts.append(edges.select(distances < cutoff - tolerance))
    mine, theirs = parts
    if mine.n_edges != theirs.n_edges:
        return f"it has {mine.n_edges} edges, the reference has {theirs.n_edges}"
    same = (
        torch.equal(mine.edge_index, theirs.edge_index)
        and torch.equal(mine.cell_shifts, theirs.cell_shifts)
        and torch.equal(mine.reverse_edge, theirs.reverse_edge)
    )
    return None if same else "its edges are not those of the reference"
