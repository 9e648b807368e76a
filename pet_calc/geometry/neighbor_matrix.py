"""A neighbor list of fixed shape: one padded row for every atom.

Its size depends on the number of atoms and the capacity alone, so that it can be built and used
without the host knowing how many neighbors there are, such as within a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry.graph import Edges


@dataclass(frozen=True, eq=False)
class NeighborMatrix:
    """A full (directed) neighbor list of N atoms with M slots each.

    The edges of an atom fill its first slots, sorted by neighbor, then cell shift. Where
    `overflow` is true nothing but `count` and `overflow` has a meaning, though every index stays
    within bounds: build the list again with more slots.

    Attributes
    ----------
    neighbors : Tensor, shape (N, M), int32
        Neighbor j; N marks an empty slot.
    shifts : Tensor, shape (N, M, 3), int32
        S in r_ij = r_j - r_i + S @ cell, for the positions as given; 0 in empty slots.
    count : Tensor, shape (N,), int32
        True number of neighbors, also where it exceeds M.
    reverse : Tensor, shape (N, M), int64
        Flat slot, row times M plus column, of the edge (j, i, -S); an empty slot points at itself.
    overflow : Tensor, shape (), bool
        On the device: the list is not complete, because an atom has more than M neighbors, the
        periodic images that were searched do not suffice for the cell, or positions or cell are
        not finite.
    """

    neighbors: Tensor
    shifts: Tensor
    count: Tensor
    reverse: Tensor
    overflow: Tensor

    @property
    def capacity(self) -> int:
        """Slots of an atom."""
        return self.neighbors.shape[1]

    @property
    def occupied(self) -> Tensor:
        """Which slots hold an edge, (N, M) bool."""
        return self.neighbors < len(self.neighbors)

    def vectors(
        self, positions: Tensor, cell: Tensor, system_index: Tensor, *, empty: float = 0.0
    ) -> Tensor:
        """Vectors r_ij = r_j - r_i + S @ cell in Å, shape (N, M, 3), differentiable.

        Parameters
        ----------
        positions : Tensor, shape (N, 3)
            In Å; the result has their dtype.
        cell : Tensor, shape (n_systems, 3, 3)
            In Å.
        system_index : Tensor, shape (N,)
        empty : float
            Vectors in empty slots are (empty, 0, 0), without gradient; a length that is not zero
            keeps the gradients of distances finite there.
        """
        occupied = self.occupied[..., None]
        j = torch.where(self.occupied, self.neighbors, 0)
        shifts = self.shifts.to(cell.dtype)
        box = cell[0] if len(cell) == 1 else cell[system_index]
        found = positions[j] - positions[:, None, :] + (shifts @ box).to(positions.dtype)
        placeholder = torch.zeros_like(found[:1, :1])
        placeholder[..., 0] = empty
        return torch.where(occupied, found, placeholder)

    def to_edges(self) -> Edges:
        """The edges alone, in the order of `pet_calc.neighbors.neighbor_list`.

        Their number depends on the data: the host waits for the device here.

        Raises
        ------
        ValueError
            If the list has overflowed.
        """
        if bool(self.overflow):
            raise ValueError(
                f"a neighbor matrix must be complete to be read, but this one has overflowed: it "
                f"has {self.capacity} slots per atom, the most neighbors of an atom are "
                f"{int(self.count.max()) if len(self.count) else 0}; build it again with more "
                "slots, and with the periodic images of this cell"
            )
        slots = torch.nonzero(self.occupied.reshape(-1))[:, 0]
        rank = torch.cumsum(self.occupied.reshape(-1), 0) - 1
        neighbor = self.neighbors.reshape(-1)[slots].to(torch.int64)
        return Edges(
            edge_index=torch.stack([slots // self.capacity, neighbor]),
            cell_shifts=self.shifts.reshape(-1, 3)[slots].to(torch.int64),
            reverse_edge=rank[self.reverse.reshape(-1)[slots]],
        )
