r"""One view of each structure, chosen by what no rotation, reflection or choice of cell changes.

An average over views (`pet_calc.models.ecse.ensemble`) is smooth in the positions; this choice
jumps where two views are equally good, and is for single numbers of fixed structures only, which
it makes exactly invariant at the cost of one evaluation. Chosen are, one after the other,

1. the sites of the largest :math:`s_i = Z_i + \sum_j Z_j e^{-r_{ij}} / 100`;
2. of their views (`pet_calc.models.ecse.orientations`) those of the largest weight;
3. the view Q of the largest :math:`f = \sum_i (1 + Z_i / 50)\, a_i^2` with
   :math:`a_i = \sum_j c_{ij} \sin(k \cdot x_{ij} Q + 1/3)` and c falling to 0 at the cutoff.

Views that a symmetry of the structure makes equal have the same f, and give the same answer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.kernels.ecse_frames.switches import segment_sum
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.ecse.orientations import Orientations, orientations, oriented
from pet_calc.models.interface import EnergyModel

#: Relative difference below which two sites, or two weights, count as equal.
_EQUAL = 1e-7
#: In 1/Å, without a simple ratio.
_DIRECTION = (0.97, 0.61, 0.37)
#: Pairs of a view and an edge that are compared at once.
_PORTION = 2_000_000


def canonical_energies(model: EnergyModel, system: System, edges: Edges) -> Tensor:
    """Energies (n_systems,) in eV, float64, of each structure in its own orientation.

    Parameters
    ----------
    model : EnergyModel
    system : System
        Whatever its orientation, origin, order of atoms and choice of cell.
    edges : Edges
        Within the cutoff of the model.
    """
    vectors = edge_vectors(system, edges).double()
    views = canonical_views(system, edges, vectors, model.cutoff)
    of_edge = system.system_index[edges.edge_index[0]]
    turned = oriented(vectors, views.matrix[of_edge], views.sign[of_edge], views.kind[of_edge])
    energies = model.energies(system, edges, turned.to(model.dtype)).double()
    return segment_sum(energies, system.system_index, system.n_systems)


def canonical_views(
    system: System, edges: Edges, vectors: Tensor, cutoff: float, config: FrameConfig | None = None
) -> Orientations:
    """The view of each structure; see the module.

    Parameters
    ----------
    system : System
    edges : Edges
    vectors : Tensor, shape (n_edges, 3), float64
        In Å.
    cutoff : float
        In Å.
    config : FrameConfig, optional

    Returns
    -------
    Orientations
        One for each structure, in their order.
    """
    index, n_systems = system.system_index, system.n_systems
    sites = largest(site_invariants(system, edges, vectors), index, n_systems)
    rows = torch.nonzero(sites)[:, 0]
    place = torch.full((system.n_atoms,), -1, dtype=torch.int64, device=vectors.device)
    place[rows] = torch.arange(len(rows), device=vectors.device)
    center = place[edges.edge_index[0]]
    own = center >= 0
    views = orientations(center[own], vectors[own], len(rows), cutoff, config or FrameConfig())
    views = replace(views, group=index[rows][views.group])
    views = views.select(largest(views.weight, views.group, n_systems))
    marks = fingerprints(views, system, edges, vectors, cutoff)
    # the first of those with the largest mark, in each structure
    best = segment_maximum(marks, views.group, n_systems)
    found = torch.nonzero(marks == best[views.group])[:, 0]
    first = torch.full((n_systems,), len(marks), dtype=torch.int64, device=marks.device)
    first = first.scatter_reduce(0, views.group[found], found, "amin")
    return views.select(first)


def site_invariants(system: System, edges: Edges, vectors: Tensor) -> Tensor:
    """The s of the module for every atom (n_atoms,)."""
    i, j = edges.edge_index
    r = vectors.square().sum(-1).sqrt()
    near = segment_sum(system.numbers[j].double() * torch.exp(-r), i, system.n_atoms)
    return system.numbers.double() + near / 100


def fingerprints(
    views: Orientations, system: System, edges: Edges, vectors: Tensor, cutoff: float
) -> Tensor:
    """The f of the module for every view (n_views,)."""
    i, j = edges.edge_index
    numbers = system.numbers.double()
    r = vectors.square().sum(-1).sqrt()
    falling = (1 - r / cutoff).clamp_min(0.0).square() * (1 + numbers[j] / 50)
    direction = vectors.new_tensor(_DIRECTION)
    of_edge = system.system_index[i]
    marks = vectors.new_zeros(views.n_views)
    for k in range(system.n_systems):
        mine = torch.nonzero(views.group == k)[:, 0]
        e = torch.nonzero(of_edge == k)[:, 0]
        atoms = torch.nonzero(system.system_index == k)[:, 0]
        own = i[e] - atoms[0]
        size = max(1, _PORTION // max(1, len(e)))
        for part in mine.split(size):
            pick = part.repeat_interleave(len(e))
            turned = oriented(
                vectors[e].repeat(len(part), 1),
                views.matrix[pick],
                views.sign[pick],
                views.kind[pick],
            )
            waves = torch.sin(turned @ direction + 1 / 3).view(len(part), len(e)) * falling[e]
            a = waves.new_zeros(len(part), len(atoms)).index_add(1, own, waves)
            marks[part] = a.square() @ (1 + numbers[atoms] / 50)
    return marks


def segment_maximum(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """The largest value of each group (n_groups,)."""
    lowest = values.new_full((n_groups,), -torch.inf)
    return lowest.scatter_reduce(0, group, values, "amax")


def largest(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Where a positive value is the largest of its group, up to rounding."""
    return values >= segment_maximum(values, group, n_groups)[group] * (1 - _EQUAL)
