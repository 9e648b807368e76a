r"""Weights of local frames, what the frames see, and averages over them, in torch.

Four operations, each differentiable twice. Pairs of neighbors j, k of an atom have the weight

.. math::

    w_{jk} = f(r_j | R) \, f(r_k | R) \, q(z_{jk}) \frac{z_{jk} - z_0}{\Delta_z}, \quad
    z_{jk} = 1 - (u_j \cdot u_k)^2

with the unit vectors u and an inner cutoff R that follows the environment; small weights are then
removed (`pruned_weights`); the first linear map acts on vectors in the frames (`framed_embedding`);
and tokens are averaged over the views of an atom (`view_average`). Definitions of Pozdnyakov &
Ceriotti [arXiv:2305.19302].
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pet_calc.kernels.ecse_frames.constants import FrameConfig
from pet_calc.kernels.ecse_frames.switches import (
    cutoff_step,
    onset,
    segment_sum,
    smooth_maximum,
)

#: Kinds of views; see `pet_calc.models.ecse.orientations`.
FRAME, AXIAL, ISOTROPIC = 0, 1, 2

#: W(1/e): the largest gap between the maximum of two values and their smooth maximum, times beta.
LAMBERT: Final = 0.27846454276107374

#: Under roots, Å²: gradients are defined where \|x × u\| or a padded \|x\| is zero, at no cost in
#: accuracy, since the average over both signs is even.
TINY: Final = 1e-16


def neighbor_pairs(center: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs a < b of positions in the sorted `center` (n,) that share a center."""
    n = len(center)
    device = center.device
    position = torch.arange(n, device=device)
    later = torch.searchsorted(center, center, right=True) - position - 1
    first = position.repeat_interleave(later)
    begin = torch.cumsum(later, 0) - later
    offset = torch.arange(len(first), device=device) - begin[first]
    return first, first + 1 + offset


def pair_weights(
    r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer_cutoff: float, config: FrameConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of neighbors that span a frame, with their weights, and the inner cutoffs.

    Parameters
    ----------
    r : Tensor, shape (n_edges,), float64
        Distances in Å.
    unit : Tensor, shape (n_edges, 3), float64
        Directions.
    atom : Tensor, shape (n_edges,), int64
        Center of each edge, ascending.
    n_atoms : int
    outer_cutoff : float
        Neighbors beyond it do not shape the inner cutoff, Å.
    config : FrameConfig

    Returns
    -------
    first, second : Tensor, shape (n_pairs,), int64
        Edges of each pair, first < second, ascending.
    weight : Tensor, shape (n_pairs,)
        Not negative; pairs with the weight zero are left out, but where it underflows.
    inner : Tensor, shape (n_atoms,)
        Inner cutoffs in Å.
    """
    a, b = neighbor_pairs(atom)
    cosine = torch.linalg.vecdot(unit.index_select(0, a), unit.index_select(0, b))
    # loses digits where z is small, which is where no pair counts
    z = 1.0 - cosine.square()
    inner = inner_cutoffs(r, z, a, b, atom, n_atoms, outer_cutoff, config)
    threshold = config.collinearity - config.collinearity_width
    limit = inner[atom]
    inside = r.detach() < limit.detach()
    keep = torch.nonzero(inside[a] & inside[b] & (z.detach() > threshold))[:, 0]
    a, b, z = a[keep], b[keep], z.index_select(0, keep)
    taper = cutoff_step(r, limit, config.taper)
    linear = (z - threshold) / config.collinearity_width
    q = onset(z, threshold, config.collinearity_width)
    weight = taper.index_select(0, a) * taper.index_select(0, b) * q * linear
    return a, b, weight, inner


def inner_cutoffs(
    r: Tensor, z: Tensor, a: Tensor, b: Tensor, atom: Tensor, n_atoms: int,
    outer_cutoff: float, config: FrameConfig,
) -> Tensor:  # fmt: skip
    r"""Radius (n_atoms,) in Å that holds the nearest pair of neighbors which spans a plane.

    .. math:: R_i = \operatorname{smin}_\beta(\{R_\mathrm{out}\} \cup \{v_{jk}\}) + \Delta, \quad
              v_{jk} = \operatorname{smax}_\beta(r_j, r_k) + W(1/e)/\beta

    where a pair counts with f(r_j) f(r_k) q(z_jk) and v is at least the longer distance.
    """
    near = r.detach() < outer_cutoff
    keep = torch.nonzero(near[a] & near[b] & (z.detach() > config.collinearity))[:, 0]
    a, b, z = a[keep], b[keep], z.index_select(0, keep)
    atom = atom[a]
    ra, rb = r.index_select(0, a), r.index_select(0, b)
    taper = cutoff_step(r, outer_cutoff, config.taper)
    both = taper.index_select(0, a) * taper.index_select(0, b)
    p = both * onset(z, config.collinearity, config.collinearity_width)
    share = torch.sigmoid(config.beta * (ra - rb))
    v = ra * share + rb * (1.0 - share) + LAMBERT / config.beta
    atoms = torch.arange(n_atoms, device=r.device)
    smallest = smooth_maximum(
        torch.cat([r.new_full((n_atoms,), outer_cutoff), v]),
        torch.cat([r.new_ones(n_atoms), p]),
        torch.cat([atoms, atom]),
        n_atoms,
        -config.beta,
    )
    return smallest + config.taper


def pruned_weights(
    weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig
) -> tuple[Tensor, Tensor]:
    """Weights with the small ones of each group smoothly removed.

    Each pass multiplies a weight w by a step that rises from 0 at t m to 1 at (t + d) m, where m is
    the smooth maximum of the group. Groups whose weights are all small are left as they are.

    Parameters
    ----------
    weight : Tensor, shape (n,), float64
        Not negative.
    group : Tensor, shape (n,), int64
        Ascending.
    n_groups : int
    config : FrameConfig

    Returns
    -------
    weight : Tensor, shape (n,)
    frame_free : Tensor, shape (n_groups,)
        From 0, some weight is large, to 1, there is none.
    """

    def largest(weight: Tensor) -> Tensor:
        return smooth_maximum(weight, weight, group, n_groups, config.beta_weights)

    most = largest(weight)
    frame_free = cutoff_step(most, config.hand_over, config.hand_over)
    off = cutoff_step(most, config.pruning_onset, config.pruning_onset_width)[group]
    for k in range(config.num_prunings):
        m = (most if k == 0 else largest(weight))[group]
        # the largest of a group is never removed: where it is zero the weights are as well
        m = torch.where(m > 0, m, 1.0)
        step = onset(weight, config.pruning_threshold * m, config.pruning_width * m)
        weight = weight * (step * (1.0 - off) + off)
    return weight, frame_free


def oriented(vectors: Tensor, matrix: Tensor, sign: Tensor, kind: Tensor) -> Tensor:
    """Coordinates (n, 3) of `vectors` (n, 3) in one view each.

    Parameters
    ----------
    vectors : Tensor, shape (n, 3)
    matrix : Tensor, shape (n, 3, 3)
        Frame in its columns; of axial views the first column is the axis.
    sign : Tensor, shape (n,)
        Factor ±1 on the second coordinate.
    kind : Tensor, shape (n,)
        FRAME, AXIAL or ISOTROPIC.
    """
    x, y, z = torch.einsum("na,nab->nb", vectors, matrix).unbind(-1)
    axial = kind == AXIAL
    isotropic = kind == ISOTROPIC
    if bool(axial.any()):
        across = torch.linalg.cross(vectors[axial], matrix[axial][..., 0]).square().sum(-1)
        y = y.index_put((axial,), (across + TINY).sqrt())
        z = torch.where(axial, torch.zeros_like(z), z)
    if bool(isotropic.any()):
        x = x.index_put((isotropic,), (vectors[isotropic].square().sum(-1) + TINY).sqrt())
        y, z = (torch.where(isotropic, torch.zeros_like(c), c) for c in (y, z))
    return torch.stack([x, y * sign, z], dim=-1)


def directions(
    vectors: Tensor, slot_edge: Tensor, row: Tensor, matrix: Tensor, sign: Tensor, kind: Tensor,
    *, unit: bool,
) -> Tensor:  # fmt: skip
    """What the views see of the directions of their slots, (n_views * width, 3 or 6).

    Parameters
    ----------
    vectors : Tensor, shape (n_edges + 1, 3), float64
        The last one is zero, for padding.
    slot_edge : Tensor, shape (n_atoms, width), int64
        Edge of each slot of an atom.
    row : Tensor, shape (n_views,), int64
        Atom of each view, ascending.
    matrix, sign, kind : Tensor, shape (n_views, ...)
        See `oriented`.
    unit : bool
        Unit vectors beside the vectors.
    """
    edge = slot_edge[row].reshape(-1)
    view = torch.arange(len(row), device=row.device).repeat_interleave(slot_edge.shape[1])
    chosen = vectors[edge]
    seen = oriented(chosen, matrix[view], sign[view], kind[view])
    if not unit:
        return seen
    padding = (edge == len(vectors) - 1)[:, None]
    length = torch.where(padding, 1.0, chosen.square().sum(-1, keepdim=True)).sqrt()
    return torch.cat([seen, seen / length], dim=1)


def embedded(base: Tensor, row: Tensor, direction: Tensor, projection: Tensor) -> Tensor:
    """Linear map of directions on top of what the views of an atom share.

    Parameters
    ----------
    base : Tensor, shape (n_atoms * width, d)
    row : Tensor, shape (n_views,), int64
    direction : Tensor, shape (n_views * width, 3 or 6)
        From `directions`.
    projection : Tensor, shape (3 or 6, d)

    Returns
    -------
    Tensor, shape (n_views * width, d)
    """
    d = base.shape[1]
    if len(direction) == 0:
        return base[:0]
    width = len(direction) // len(row)
    shared = base.view(-1, width * d).index_select(0, row).view(-1, d)
    return torch.addmm(shared, direction, projection)


def framed_embedding(
    base: Tensor, projection: Tensor, vectors: Tensor, slot_edge: Tensor, row: Tensor,
    matrix: Tensor, sign: Tensor, kind: Tensor,
) -> Tensor:  # fmt: skip
    """`embedded` with `directions`: rotation into the first linear map; see both."""
    unit = len(projection) == 6
    seen = directions(vectors, slot_edge, row, matrix, sign, kind, unit=unit)
    return embedded(base, row, seen.to(base.dtype), projection)


def view_average(values: Tensor, row: Tensor, weight: Tensor, n_atoms: int) -> Tensor:
    """Weighted sums over the views of each atom, (n_atoms, n).

    Parameters
    ----------
    values : Tensor, shape (n_views, n)
    row : Tensor, shape (n_views,), int64
        Atom of each view, ascending.
    weight : Tensor, shape (n_views, 1)
        They sum to 1 over the views of an atom.
    n_atoms : int
    """
    return segment_sum(values * weight, row, n_atoms)
