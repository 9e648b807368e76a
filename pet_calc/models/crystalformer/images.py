"""The periodic images that every atom attends to, with their distances and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.kernels.cutoff_functions import bump
from pet_calc.kernels.lattice_attention import ImageLayout, image_layout
from pet_calc.models.crystalformer.directions import directional_encoding
from pet_calc.models.ecse.frames import FrameConfig

# of no effect within 1e-15; keeps the logarithm finite where an image leaves
_TINY = 1e-15
# exp underflows to exactly zero in float32 and float64
_HIDDEN = -1e9


@dataclass(frozen=True, eq=False)
class Images:
    """Images in the slots of a layout.

    Attributes
    ----------
    layout : ImageLayout
    distances : Tensor, shape (n_slots,)
        |p_j + n L - p_i| in Å; 0 on padding and for an atom itself.
    log_weight : Tensor, shape (n_slots,)
        Logarithm of the cutoff weight.
    directions : Tensor, shape (n_slots, n)
        Encoding of the directions; 0 on padding and for an atom itself.
    """

    layout: ImageLayout
    distances: Tensor
    log_weight: Tensor
    directions: Tensor


def smooth_images(
    edges: Edges, vectors: Tensor, n_atoms: int, cutoff: float, width: float,
    num_angular: int = 0, frames: FrameConfig | None = None,
) -> Images:  # fmt: skip
    """All images within the cutoff, which leave it smoothly, and each atom itself with weight 1.

    Parameters
    ----------
    edges : Edges
        Pairs within the cutoff at least.
    vectors : Tensor, shape (n_edges, 3)
        In Å.
    n_atoms : int
    cutoff, width : float
        Of the bump (`pet_calc.kernels.cutoff_functions.bump`), in Å.
    num_angular, frames
        Of the encoding of directions (`directional_encoding`); none by default.
    """
    center, neighbor = edges.edge_index
    own = torch.arange(n_atoms, device=center.device)
    layout = image_layout(torch.cat([center, own]), torch.cat([neighbor, own]), n_atoms)
    distances = (vectors.square().sum(-1) + _TINY).sqrt()
    log_weight = bump(distances, cutoff, width).clamp_min(_TINY).log()
    # the atom itself, then padding; constants, so no gradient of |r| at r = 0 arises
    zeros = distances.new_zeros(n_atoms + 1)
    hidden = torch.cat([zeros[:-1], zeros.new_full((1,), _HIDDEN)])
    directions = zeros.new_zeros(len(layout.source), 0)
    if num_angular:
        encoded = directional_encoding(
            edges, vectors, n_atoms, cutoff, num_angular, frames or FrameConfig()
        )
        rows = zeros.new_zeros(n_atoms + 1, encoded.shape[1])
        directions = torch.cat([encoded, rows])[layout.source]
    return Images(
        layout,
        torch.cat([distances, zeros])[layout.source],
        torch.cat([log_weight, hidden])[layout.source],
        directions,
    )


def box_images(system: System, image_range: int, dtype: torch.dtype) -> Images:
    """Images of every atom in the cells -n..n around the positions as they were given.

    The published choice; without periodicity, cell vectors of zero would count an atom often.
    """
    steps = torch.arange(-image_range, image_range + 1, device=system.device)
    shifts = torch.cartesian_prod(steps, steps, steps)  # (n_shifts, 3)
    centers, neighbors, squares = [], [], []
    counts = torch.bincount(system.system_index, minlength=system.n_systems).tolist()
    begin = 0
    for s, n in enumerate(counts):
        x = system.positions[begin : begin + n]
        lattice = shifts.to(x.dtype) @ system.cell[s]
        vectors = x[None, :, None] - x[:, None, None] + lattice  # (n, n, n_shifts, 3)
        i, j, _ = torch.meshgrid(
            *(torch.arange(k, device=x.device) for k in (n, n, len(shifts))), indexing="ij"
        )
        centers.append(i.reshape(-1) + begin)
        neighbors.append(j.reshape(-1) + begin)
        squares.append(vectors.square().sum(-1).reshape(-1))
        begin += n
    square = torch.cat(squares)
    # no gradient of |r| where an atom meets itself
    apart = square > 0
    distances = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
    layout = image_layout(torch.cat(centers), torch.cat(neighbors), system.n_atoms)
    padded = torch.cat([distances, distances.new_zeros(1)]).to(dtype)
    weights = torch.cat([torch.zeros_like(distances), distances.new_full((1,), _HIDDEN)])
    none = padded.new_zeros(len(layout.source), 0)
    return Images(layout, padded[layout.source], weights.to(dtype)[layout.source], none)
