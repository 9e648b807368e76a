"""Edges between atoms and the padded layout in which models process them.

An edge is a pair of a center ``i`` and one periodic image of a neighbor ``j``:

    r_ij = r_j - r_i + S @ cell

Every edge (i, j, S) has a partner (j, i, -S), its reverse edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_calc.geometry.system import System

#: Slots that take PET as long as the calls that one bucket more needs (one core of a CPU).
BUCKET_COST: Final = 100
#: Edges of a batch on a CPU, where a larger one is not faster; a GPU begins with it.
BATCH_EDGES: Final = 5_000


@dataclass(frozen=True, eq=False)
class Edges:
    """A full (directed) neighbor list, sorted by center.

    Attributes
    ----------
    edge_index : Tensor, shape (2, n_edges), int64
        Centers i and neighbors j.
    cell_shifts : Tensor, shape (n_edges, 3), int64
        S in r_ij = r_j - r_i + S @ cell.
    reverse_edge : Tensor, shape (n_edges,), int64
        Index of the edge (j, i, -S).
    """

    edge_index: Tensor
    cell_shifts: Tensor
    reverse_edge: Tensor

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return self.edge_index.shape[1]

    def select(self, keep: Tensor) -> Edges:
        """The edges where the mask `keep` (n_edges,) is true.

        `keep` must treat an edge and its reverse alike, as a criterion on the distance does.
        """
        new_index = torch.cumsum(keep, 0) - 1
        return Edges(
            edge_index=self.edge_index[:, keep],
            cell_shifts=self.cell_shifts[keep],
            reverse_edge=new_index[self.reverse_edge[keep]],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Edges], n_atoms: Sequence[int]) -> Edges:
        """Edges of a batch from those of its systems, which have `n_atoms` atoms each."""
        atom_offsets = np.cumsum([0, *n_atoms[:-1]]).tolist()
        edge_offsets = np.cumsum([0, *(p.n_edges for p in parts[:-1])]).tolist()
        return cls(
            edge_index=torch.cat(
                [p.edge_index + o for p, o in zip(parts, atom_offsets, strict=True)], dim=1
            ),
            cell_shifts=torch.cat([p.cell_shifts for p in parts]),
            reverse_edge=torch.cat(
                [p.reverse_edge + o for p, o in zip(parts, edge_offsets, strict=True)]
            ),
        )


def edge_vectors(system: System, edges: Edges) -> Tensor:
    """Vectors r_ij = r_j - r_i + S @ cell in Å, shape (n_edges, 3), differentiable."""
    i, j = edges.edge_index
    cell = system.cell
    shifts = edges.cell_shifts.to(cell.dtype)
    if system.n_systems == 1:
        offset = shifts @ cell[0]
    else:
        offset = torch.einsum("ea,eab->eb", shifts, cell[system.system_index[i]])
    return system.positions[j] - system.positions[i] + offset


@dataclass(frozen=True)
class Bucket:
    """A run of atoms that share one padded number of neighbor slots.

    Attributes
    ----------
    atoms : slice
        Rows of the sorted atom order.
    slots : slice
        Rows of the flat slot array; ``n_atoms * width`` of them.
    n_atoms, width : int
        The slots of the bucket have the shape (n_atoms, width).
    """

    atoms: slice
    slots: slice
    n_atoms: int
    width: int


@dataclass(frozen=True, eq=False)
class NodeEdgeLayout:
    """Atoms sorted by their number of neighbors, cut into padded buckets.

    Attributes
    ----------
    buckets : tuple of Bucket
        Widths rise from bucket to bucket.
    atom_order : Tensor, shape (n_atoms,), int64
        Atom at each row of the sorted order.
    slot_edge : Tensor, shape (n_slots,), int64
        Edge in each slot; ``n_edges`` marks padding.
    slot_mask : Tensor, shape (n_slots,), bool
        False on padding.
    reverse_slot : Tensor, shape (n_slots,), int64
        Slot of the reverse edge; a padding slot points at itself.
    edge_slot : Tensor, shape (n_edges,), int64
        Slot of each edge; ``n_slots`` marks an edge without slot.
    """

    buckets: tuple[Bucket, ...]
    atom_order: Tensor
    slot_edge: Tensor
    slot_mask: Tensor
    reverse_slot: Tensor
    edge_slot: Tensor

    @property
    def padding_fraction(self) -> float:
        """Share of the slots that hold no edge."""
        n_slots = len(self.slot_edge)
        return 0.0 if n_slots == 0 else 1.0 - float(self.slot_mask.sum()) / n_slots

    @property
    def widths(self) -> Tensor:
        """Slots of each atom, in the sorted order, (n_atoms,) int64."""
        counts = torch.tensor([b.n_atoms for b in self.buckets])
        widths = torch.tensor([b.width for b in self.buckets])
        return widths.repeat_interleave(counts).to(self.atom_order.device)

    def split(self, cost: Tensor, limit: int) -> NodeEdgeLayout:
        """The same order in smaller buckets.

        Parameters
        ----------
        cost : Tensor, shape (n_atoms,)
            Of each atom, in the sorted order; not negative.
        limit : int
            Cost of the atoms in a bucket, exceeded by less than one atom's.
        """
        buckets: list[Bucket] = []
        for bucket, costs in zip(
            self.buckets, cost.split([b.n_atoms for b in self.buckets]), strict=True
        ):
            part = (costs.cumsum(0) - costs) // limit
            begin, first = bucket.atoms.start, bucket.slots.start
            for n in torch.unique_consecutive(part, return_counts=True)[1].tolist():
                size = n * bucket.width
                buckets.append(
                    Bucket(slice(begin, begin + n), slice(first, first + size), n, bucket.width)
                )
                begin, first = begin + n, first + size
        return replace(self, buckets=tuple(buckets))


def bucket_boundaries(
    counts: NDArray[np.int64],
    max_padding: float,
    max_buckets: int = 16,
    *,
    bucket_cost: int = 0,
) -> list[int]:
    """Cut sorted neighbor counts into the fewest buckets that keep padding within a bound.

    For each number of buckets the cut with the least padding is found by dynamic programming
    over the distinct counts. What a bucket more saves falls with their number, so that to stop
    at the first that is not worth its cost is the least of slots and costs together.

    Parameters
    ----------
    counts : array, shape (n_atoms,)
        Neighbor counts, ascending.
    max_padding : float
        Largest accepted share of padded slots.
    max_buckets : int
        Largest number of buckets; reached only by systems of very uneven coordination.
    bucket_cost : int
        Slots that a bucket more has to save; the bound on padding yields to it.

    Returns
    -------
    list of int
        Ends of the buckets; the last is n_atoms.
    """
    widths, first = np.unique(counts, return_index=True)
    edges = int(counts.sum())
    if edges == 0:
        return [len(counts)]
    bounds = np.append(first, len(counts))
    n = len(widths)
    # cost[a, b]: slots of one bucket that holds the distinct counts a..b
    cost = (bounds[None, 1:] - bounds[:-1, None]) * widths[None, :]
    best = cost[0].astype(np.float64)
    choices: list[NDArray[np.int64]] = []
    for _ in range(1, min(n, max_buckets)):
        if edges >= (1.0 - max_padding) * best[-1]:
            break
        # candidate[a, b]: best split whose last bucket starts at the distinct count a >= 1
        candidate = best[:-1, None] + np.where(
            np.arange(1, n)[:, None] <= np.arange(n)[None, :], cost[1:], np.inf
        )
        start = candidate.argmin(0) + 1
        better = candidate.min(0)
        if best[-1] - better[-1] < bucket_cost:
            break
        choices.append(start)
        best = better
    ends = [len(counts)]
    last = n - 1
    for start in reversed(choices):
        begin = int(start[last])
        ends.append(int(bounds[begin]))
        last = begin - 1
    return ends[::-1]


def node_edge_layout(
    edges: Edges, n_atoms: int, *, max_padding: float = 0.03, bucket_cost: int = BUCKET_COST
) -> NodeEdgeLayout:
    """Arrange the edges of `n_atoms` atoms into padded buckets (`NodeEdgeLayout`).

    Parameters
    ----------
    edges : Edges
        Sorted by center.
    n_atoms : int
        Number of atoms, those without neighbors included.
    max_padding : float
        Largest share of slots that may be padding.
    bucket_cost : int
        Slots that a bucket more has to save, whatever the padding.
    """
    device = edges.edge_index.device
    center = edges.edge_index[0].cpu().numpy()
    counts = np.bincount(center, minlength=n_atoms)
    order = np.argsort(counts, kind="stable")
    sorted_counts = counts[order]
    first_edge = np.concatenate([[0], np.cumsum(counts)])[:-1]
    n_edges = edges.n_edges

    buckets: list[Bucket] = []
    slot_edge_parts: list[NDArray[np.int64]] = []
    begin = n_slots = 0
    for end in bucket_boundaries(sorted_counts, max_padding, bucket_cost=bucket_cost):
        width = int(sorted_counts[end - 1])
        rows = order[begin:end]
        column = np.arange(width)
        part = np.where(
            column[None, :] < counts[rows][:, None], first_edge[rows][:, None] + column, n_edges
        )
        slot_edge_parts.append(part.reshape(-1))
        size = (end - begin) * width
        buckets.append(
            Bucket(slice(begin, end), slice(n_slots, n_slots + size), end - begin, width)
        )
        begin, n_slots = end, n_slots + size

    slot_edge = np.concatenate(slot_edge_parts)
    mask = slot_edge < n_edges
    slot_of_edge = np.empty(n_edges, dtype=np.int64)
    slot_of_edge[slot_edge[mask]] = np.flatnonzero(mask)
    reverse_slot = np.arange(n_slots)
    reverse_slot[mask] = slot_of_edge[edges.reverse_edge.cpu().numpy()[slot_edge[mask]]]
    return NodeEdgeLayout(
        buckets=tuple(buckets),
        atom_order=torch.from_numpy(order).to(device),
        slot_edge=torch.from_numpy(slot_edge).to(device),
        slot_mask=torch.from_numpy(mask).to(device),
        reverse_slot=torch.from_numpy(reverse_slot).to(device),
        edge_slot=torch.from_numpy(slot_of_edge).to(device),
    )
