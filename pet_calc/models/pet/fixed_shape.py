r"""PET in shapes that do not depend on the structure, for steps that a CUDA graph repeats.

All slots of a `NeighborMatrix` are edges here, empty ones included, and so are pairs of its skin.
Those that the network sees are moved into a layout whose buckets were planned once, for atoms in
the order of their number of neighbors now. Nothing in here makes the host wait for the device, and
no shape depends on the positions: edges that do not count lie beyond every cutoff, where weights,
repulsions and all their derivatives are exactly zero. How many slots are lacking is part of the
results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pet_calc.geometry import Bucket, Edges, NeighborMatrix, NodeEdgeLayout, System
from pet_calc.geometry.graph import bucket_boundaries
from pet_calc.models.derivatives import evaluate_slots
from pet_calc.models.interface import EnergyModel, Results
from pet_calc.models.pet.adaptive_cutoff import Environment, adaptive_cutoffs
from pet_calc.models.pet.model import PET
from pet_calc.models.pet.network import PART, kept_elements

#: Slots beyond those that are needed at first.
HEADROOM: Final = 1.1
#: Atoms from which on they are put into several buckets.
MANY_ATOMS: Final = 2000
# keeps the gradient of |r| defined; of no effect within 1e-15
_TINY: Final = 1e-15


def require_fixed_shape(model: EnergyModel) -> PET:
    """The model, if it can be evaluated here.

    Raises
    ------
    ValueError
        For models whose shapes depend on the structure.
    """
    if not isinstance(model, PET):
        raise ValueError(
            f"steps of fixed shape need one plain PET, got {type(model).__name__}; leave out "
            f"`cuda_graph`, or `ecse` and all models but one"
        )
    if model.config.ecse != "none":
        raise ValueError(
            "steps of fixed shape need a model without local frames, whose number depends on the "
            f"structure, but this one has `ecse` {model.config.ecse!r}; leave out `cuda_graph`"
        )
    return model


@dataclass(frozen=True, eq=False)
class SlotGraph:
    """All slots of a neighbor matrix as edges.

    Attributes
    ----------
    edges : Edges
        N M edges in the order of the slots; an empty slot leads to its own atom and is its own
        reverse edge.
    shifts : Tensor, shape (N M, 3), float64
        Cell shifts.
    occupied : Tensor, shape (N M,), bool
    capacity : int
        M.
    """

    edges: Edges
    shifts: Tensor
    occupied: Tensor
    capacity: int

    @classmethod
    def of(cls, matrix: NeighborMatrix) -> SlotGraph:
        """The graph of a list that has not overflowed."""
        n, m = matrix.neighbors.shape
        occupied = matrix.occupied
        center = torch.arange(n, device=occupied.device)[:, None].expand(n, m)
        neighbor = matrix.neighbors.to(torch.int64)
        neighbor = torch.where(occupied, neighbor, center)
        shifts = matrix.shifts.reshape(-1, 3)
        return cls(
            edges=Edges(
                edge_index=torch.stack([center.reshape(-1), neighbor.reshape(-1)]),
                cell_shifts=shifts.to(torch.int64),
                reverse_edge=matrix.reverse.reshape(-1).clone(),
            ),
            shifts=shifts.to(torch.float64),
            occupied=occupied.reshape(-1),
            capacity=m,
        )

    def to(self, device: torch.device) -> SlotGraph:
        """The same graph on another device."""
        index, cells, reverse, shifts, occupied = (t.to(device) for t in self.tensors)
        return SlotGraph(Edges(index, cells, reverse), shifts, occupied, self.capacity)

    def copy_(self, other: SlotGraph) -> None:
        """Write another graph of the same shape into the memory of this one."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that depends on the list."""
        e = self.edges
        return e.edge_index, e.cell_shifts, e.reverse_edge, self.shifts, self.occupied

    def vectors(self, system: System) -> Tensor:
        """Vectors r_j - r_i + S @ cell in Å, (N M, 3)."""
        i, j = self.edges.edge_index
        x = system.positions
        if system.n_systems == 1:
            offset = self.shifts @ system.cell[0]
        else:
            rows = self.shifts.view(system.n_atoms, self.capacity, 3)
            offset = torch.bmm(rows, system.cell[system.system_index]).view(-1, 3)
        return x.index_select(0, j) - x.index_select(0, i) + offset


@dataclass(frozen=True, eq=False)
class BucketPlan:
    """Buckets that atoms are put into by their number of neighbors, whatever it is.

    Attributes
    ----------
    buckets : tuple of Bucket
        Widths rise from bucket to bucket.
    row_slot : Tensor, shape (n_atoms,), int64
        First slot of each row of the sorted order.
    row_width : Tensor, shape (n_atoms,), int64
        Slots of each row.
    rows : int or None
        As of `Tokens`: several buckets are of one width where activations are recomputed.
    """

    buckets: tuple[Bucket, ...]
    row_slot: Tensor
    row_width: Tensor
    rows: int | None

    @property
    def n_slots(self) -> int:
        """Slots of all rows."""
        return self.buckets[-1].slots.stop

    @classmethod
    def of(cls, counts: Tensor, d_pet: int) -> BucketPlan:
        """A plan with room for atoms of about these numbers of neighbors.

        Parameters
        ----------
        counts : Tensor, shape (n_atoms,), int64
            The host waits for it.
        d_pet : int
            Width of the tokens.
        """
        device = counts.device
        ordered = np.sort(counts.cpu().numpy())
        n = len(ordered)
        # several buckets launch several times as much, which only larger systems gain from
        ends = bucket_boundaries(ordered, 0.05, 4) if n >= MANY_ATOMS else [n]
        needed = [int(ordered[end - 1]) for end in ends]
        widths = [*(w + 2 for w in needed[:-1]), with_room(needed[-1])]
        sizes = np.diff([0, *ends])
        n_slots = int((sizes * widths).sum())
        rows = None if n_slots * d_pet <= kept_elements(device) else max(1, PART // d_pet)
        buckets: list[Bucket] = []
        atom = slot = 0
        for end, width in zip(ends, widths, strict=True):
            most = end - atom if rows is None else max(1, rows // width)
            while atom < end:
                size = min(most, end - atom)
                slots = slice(slot, slot + size * width)
                buckets.append(Bucket(slice(atom, atom + size), slots, size, width))
                atom, slot = atom + size, slots.stop
        row_width = np.repeat([b.width for b in buckets], [b.n_atoms for b in buckets])
        return cls(
            buckets=tuple(buckets),
            row_slot=torch.from_numpy(np.cumsum(row_width) - row_width).to(device),
            row_width=torch.from_numpy(row_width).to(device),
            rows=rows,
        )


def with_room(n: int) -> int:
    """Slots to reserve where `n` are needed at first."""
    return max(n + 2, math.ceil(HEADROOM * n))


@dataclass(frozen=True, eq=False)
class StepResults:
    """Outcome of a step, all of it on the device.

    Attributes
    ----------
    results : Results
        Without meaning if slots are lacking.
    lacking : Tensor, shape (), int64
        Most slots that a row would need beyond those it has; negative where there is room.
    closest2 : Tensor, shape (), float64
        Square of the shortest distance in Å²; infinite if no pair is in reach.
    """

    results: Results
    lacking: Tensor
    closest2: Tensor


def evaluate_fixed(
    model: PET, system: System, species: Tensor, graph: SlotGraph, plan: BucketPlan
) -> StepResults:
    """Energy, forces and stress in fixed shapes.

    Parameters
    ----------
    model : PET
        From `require_fixed_shape`.
    system : System
    species : Tensor, shape (n_atoms,)
        From ``model.species``.
    graph : SlotGraph
        Holds every pair within ``model.cutoff``, and may hold more.
    plan : BucketPlan
        Where the network's edges go.
    """
    exact = graph.vectors(system)
    squared = exact.square().sum(-1)
    inside = graph.occupied & (squared < model.cutoff**2)
    lacking: list[Tensor] = []

    def energies(vectors: Tensor) -> Tensor:
        seen, keep = seen_slots(model, graph, vectors, inside)
        layout, beyond = layout_of(graph, keep, plan)
        lacking.append(beyond)
        tokens = model.plain_tokens(species, seen, layout, plan.rows)
        features = model.passed(system, species, tokens)
        pairs = model.pair_energies(species, graph.edges, vectors)
        return model.read_out(system, features) + pairs

    results = evaluate_slots(
        energies, model.dtype, system, graph.edges, exact, inside, beyond=2.0 * model.cutoff
    )
    closest2 = squared.masked_fill(~graph.occupied, torch.inf).amin()
    return StepResults(results, lacking[0], closest2)


def neighbor_counts(model: PET, system: System, graph: SlotGraph) -> Tensor:
    """Number of neighbors that the network sees of each atom, (n_atoms,) int64."""
    with torch.no_grad():
        exact = graph.vectors(system)
        inside = graph.occupied & (exact.square().sum(-1) < model.cutoff**2)
        vectors = exact.masked_fill(~inside[:, None], 2.0 * model.cutoff).to(model.dtype)
        _, keep = seen_slots(model, graph, vectors, inside)
        return keep.view(-1, graph.capacity).sum(1)


def seen_slots(
    model: PET, graph: SlotGraph, vectors: Tensor, inside: Tensor
) -> tuple[Environment, Tensor]:
    """All slots with their cutoffs, and which of them the network sees; as `PET.environment`."""
    config, edges = model.config, graph.edges
    n_atoms = len(inside) // graph.capacity
    distances = (vectors.square().sum(-1) + _TINY).sqrt()
    keep = inside & (distances <= config.cutoff)
    if config.num_neighbors_adaptive is not None:
        atomic, cutoff, within = adaptive_cutoffs(edges, distances, n_atoms, config)
        seen = Environment(edges, vectors, distances, cutoff, atomic)
        keep = keep & within
    else:
        radii = distances.new_full((n_atoms,), config.cutoff)
        seen = Environment(edges, vectors, distances, config.cutoff, radii)
    # rounding must not keep one direction of an edge alone
    return seen, keep & keep.index_select(0, edges.reverse_edge)


def layout_of(graph: SlotGraph, keep: Tensor, plan: BucketPlan) -> tuple[NodeEdgeLayout, Tensor]:
    """The edges that are kept, in the rows of a plan; and how many slots are lacking in a row."""
    n_edges, capacity, n_slots = len(keep), graph.capacity, plan.n_slots
    n_atoms, device = n_edges // capacity, keep.device
    atoms = torch.arange(n_atoms, device=device)
    rank = keep.view(n_atoms, capacity).cumsum(1)
    count, order = torch.sort(rank[:, -1], stable=True)
    row = torch.empty_like(order).scatter(0, order, atoms)
    placed = (keep.view(n_atoms, capacity) & (rank <= plan.row_width[row][:, None])).reshape(-1)
    edge_slot = (plan.row_slot[row][:, None] + rank - 1).reshape(-1).masked_fill(~placed, n_slots)
    slot_edge = torch.full((n_slots + 1,), n_edges, device=device)
    # what is not placed is written beyond the end
    slot_edge = slot_edge.scatter(0, edge_slot, torch.arange(n_edges, device=device))[:n_slots]
    mask = slot_edge < n_edges
    edge = slot_edge.masked_fill(~mask, 0)
    partner = edge_slot.index_select(0, graph.edges.reverse_edge.index_select(0, edge))
    reverse = torch.where(mask & (partner < n_slots), partner, torch.arange(n_slots, device=device))
    layout = NodeEdgeLayout(
        buckets=plan.buckets,
        atom_order=order,
        slot_edge=slot_edge,
        slot_mask=mask,
        reverse_slot=reverse,
        edge_slot=edge_slot,
    )
    return layout, (count - plan.row_width).amax()
