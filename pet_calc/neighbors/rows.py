"""A neighbor matrix from a list of edges: what the host has found, for a step of fixed shape."""

from __future__ import annotations

import torch

from pet_calc.geometry import Edges, NeighborMatrix


def matrix_from_edges(edges: Edges, n_atoms: int, capacity: int) -> NeighborMatrix:
    """The edges of `n_atoms` atoms in rows of `capacity` slots.

    Parameters
    ----------
    edges : Edges
        Sorted by center.
    n_atoms, capacity : int

    Raises
    ------
    ValueError
        If an atom has more than `capacity` neighbors.
    """
    center, neighbor = edges.edge_index
    device = center.device
    count = torch.bincount(center, minlength=n_atoms)
    most = int(count.max()) if n_atoms else 0
    if most > capacity:
        raise ValueError(f"`capacity` must be at least {most} slots here, got {capacity}")
    first = torch.cumsum(count, 0) - count
    slot = center * capacity + torch.arange(edges.n_edges, device=device) - first[center]
    n_slots = n_atoms * capacity
    neighbors = torch.full((n_slots,), n_atoms, dtype=torch.int32, device=device)
    shifts = torch.zeros(n_slots, 3, dtype=torch.int32, device=device)
    reverse = torch.arange(n_slots, device=device)
    neighbors[slot] = neighbor.to(torch.int32)
    shifts[slot] = edges.cell_shifts.to(torch.int32)
    reverse[slot] = slot[edges.reverse_edge]
    return NeighborMatrix(
        neighbors=neighbors.view(n_atoms, capacity),
        shifts=shifts.view(n_atoms, capacity, 3),
        count=count.to(torch.int32),
        reverse=reverse.view(n_atoms, capacity),
        overflow=torch.zeros((), dtype=torch.bool, device=device),
    )
