r"""A cutoff radius for every atom, chosen for a given number of neighbors.

Atom i gets the radius r_i at which its smoothed number of neighbors, plus a term that makes it
grow without neighbors too, is N:

.. math:: n_i(r) = \sum_j f(d_{ij}; r, w) + N (r / R)^3 = N

with the bump f (`pet_calc.kernels.cutoff_functions.bump`). An edge is kept within
R_ij = (r_i + r_j) / 2, which is the same for both of its directions. The energy depends on r_i, and
through it on atoms beyond the edges that are kept, so all edges up to R take part in forces and
stress.

=========  ==========================================
symbol     meaning
=========  ==========================================
R          `max_cutoff`, Å
N          `target`, number of neighbors
w          `width` of the count's step, Å
=========  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import Edges
from pet_calc.kernels.cutoff_functions import bump, bump_slope
from pet_calc.models.pet.config import PETConfig

# as published; on environments that need more the last step is a Newton step all the same
_STEPS = 10
_SMALLEST_SLOPE = 1e-6
_FIRST_PROBE = 0.5


@dataclass(frozen=True, eq=False)
class Environment:
    """The edges that a model sees, with the radius at which each of them ends.

    Attributes
    ----------
    edges : Edges
    vectors : Tensor, shape (n_edges, 3)
        In Å.
    distances : Tensor, shape (n_edges,)
        In Å.
    cutoff : float, or Tensor of shape (n_edges,)
        R_ij in Å; one number if it is fixed.
    atomic_cutoff : Tensor, shape (n_atoms,)
        r_i in Å.
    kept : Tensor or None, shape (n_edges of the list,)
        Which edges of the list are seen; None: all of them.
    """

    edges: Edges
    vectors: Tensor
    distances: Tensor
    cutoff: float | Tensor
    atomic_cutoff: Tensor
    kept: Tensor | None = None


def adaptive_environment(
    edges: Edges, vectors: Tensor, distances: Tensor, n_atoms: int, config: PETConfig
) -> Environment:
    """Keep the edges within the adaptive cutoffs of their atoms.

    Parameters
    ----------
    edges : Edges
        All pairs up to ``config.cutoff``.
    vectors : Tensor, shape (n_edges, 3)
    distances : Tensor, shape (n_edges,)
    n_atoms : int
    config : PETConfig
        With `num_neighbors_adaptive`.
    """
    atomic, cutoff, keep = adaptive_cutoffs(edges, distances, n_atoms, config)
    return Environment(
        edges.select(keep), vectors[keep], distances[keep], cutoff[keep], atomic, keep
    )


def adaptive_cutoffs(
    edges: Edges, distances: Tensor, n_atoms: int, config: PETConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Cutoffs of atoms and edges, arguments as of `adaptive_environment`.

    Returns
    -------
    atomic : Tensor, shape (n_atoms,)
        r_i in Å.
    cutoff : Tensor, shape (n_edges,)
        R_ij in Å.
    keep : Tensor, shape (n_edges,), bool
        Edges within R_ij.
    """
    assert config.num_neighbors_adaptive is not None
    find = solved_cutoffs if config.adaptive_cutoff_method == "solver" else grid_cutoffs
    center, neighbor = edges.edge_index
    atomic = find(
        distances,
        center,
        n_atoms,
        max_cutoff=config.cutoff,
        target=config.num_neighbors_adaptive,
        width=config.cutoff_width_adaptive,
    )
    cutoff = 0.5 * (atomic[center] + atomic[neighbor])
    inside = distances <= cutoff
    # rounding must not keep one direction of an edge alone
    return atomic, cutoff, inside & inside[edges.reverse_edge]


def neighbor_count(
    distances: Tensor,
    center: Tensor,
    radius: Tensor,
    max_cutoff: float,
    target: float,
    width: float,
) -> Tensor:
    """n_i(r_i), shape (n_atoms,)."""
    count = torch.zeros_like(radius).index_add(0, center, bump(distances, radius[center], width))
    return count + target * (radius / max_cutoff) ** 3


def neighbor_count_slope(
    distances: Tensor,
    center: Tensor,
    radius: Tensor,
    max_cutoff: float,
    target: float,
    width: float,
) -> Tensor:
    """dn_i/dr at r_i, shape (n_atoms,)."""
    slope = torch.zeros_like(radius).index_add(
        0, center, bump_slope(distances, radius[center], width)
    )
    return slope + 3.0 * target * radius.square() / max_cutoff**3


def solved_cutoffs(
    distances: Tensor,
    center: Tensor,
    n_atoms: int,
    *,
    max_cutoff: float,
    target: float,
    width: float,
) -> Tensor:
    """Solve n_i(r) = N by Newton steps within a bracket, without gradient.

    One more Newton step, whose numerator alone is differentiated, then attaches the gradient of
    the implicit function theorem, dr_i/dd_ij = -(dn_i/dd_ij) / (dn_i/dr).

    Returns
    -------
    Tensor, shape (n_atoms,)
        r_i in Å, between R / 16 and R.
    """
    fixed = distances.detach()
    arguments = (max_cutoff, target, width)
    low = distances.new_zeros(n_atoms)
    high = torch.full_like(low, max_cutoff)
    radius = 0.5 * high
    for _ in range(_STEPS):
        excess = neighbor_count(fixed, center, radius, *arguments) - target
        slope = neighbor_count_slope(fixed, center, radius, *arguments)
        low = torch.where(excess <= 0, radius, low)
        high = torch.where(excess <= 0, high, radius)
        newton = radius - excess / slope.clamp_min(_SMALLEST_SLOPE)
        inside = (newton >= low) & (newton <= high)
        radius = torch.where(inside, newton, 0.5 * (low + high))
    slope = neighbor_count_slope(fixed, center, radius, *arguments)
    excess = neighbor_count(distances, center, radius, *arguments) - target
    return (radius - excess / slope.clamp_min(_SMALLEST_SLOPE)).clamp(max_cutoff / 16, max_cutoff)


def grid_cutoffs(
    distances: Tensor,
    center: Tensor,
    n_atoms: int,
    *,
    max_cutoff: float,
    target: float,
    width: float,
) -> Tensor:
    r"""Mean of probe radii p_k, weighted by how close the count is to N there.

    .. math:: D_{ik} = \sum_j f(d_{ij}; p_k, w) - N + N x_k^3, \qquad
              r_i = \frac{\sum_k p_k e^{-D_{ik}^2 / 2 \sigma_{ik}^2}}
                         {\sum_k e^{-D_{ik}^2 / 2 \sigma_{ik}^2}}

    with p_k from 0.5 Å to R in steps of w / 4, x_k from 0 to 1 in as many steps, and σ_ik the
    magnitude of the difference of D_i between neighboring probes. The method of checkpoints up
    to version 11.

    Returns
    -------
    Tensor, shape (n_atoms,)
        r_i in Å.
    """
    probes = torch.arange(
        _FIRST_PROBE, max_cutoff, width / 4, dtype=distances.dtype, device=distances.device
    )
    counts = distances.new_zeros(len(probes), n_atoms).index_add(
        1, center, bump(distances[None, :], probes[:, None], width)
    )
    x = torch.linspace(0, 1, len(probes), dtype=distances.dtype, device=distances.device)
    gap = counts.T - target + target * x**3  # (n_atoms, n_probes)
    if len(probes) == 1:
        return probes.expand(n_atoms)
    (sigma,) = torch.gradient(gap, dim=1)
    # softmax subtracts the largest exponent of each atom, so no atom's weights all underflow
    weights = torch.softmax(-0.5 * (gap / sigma.abs().clamp_min(1e-12)).square(), dim=1)
    return weights @ probes
