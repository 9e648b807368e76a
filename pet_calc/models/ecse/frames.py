r"""Local coordinate frames of atoms from ordered pairs of their neighbours, with smooth weights.

Neighbours j and k of an atom, in the directions u_j and u_k, span the right-handed frame

.. math:: e_1 = u_j, \quad e_2 = \frac{u_j \times u_k}{|u_j \times u_k|}, \quad e_3 = e_1 \times e_2

and its weight falls smoothly to zero as either neighbour leaves an inner cutoff or as the three
atoms become collinear. The inner cutoff follows the environment, so that a few near neighbours
suffice and at least one frame keeps its weight. Definitions of Pozdnyakov & Ceriotti
[arXiv:2305.19302] with the outer cutoff drawn in by the taper, without which a neighbour that
enters the cutoff of the model can bring a frame of full weight with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from pet_calc.models.ecse.switches import cutoff_step, onset, segment_sum, smooth_maximum

#: W(1/e): the largest gap between the maximum of two values and their smooth maximum, times beta.
_LAMBERT = 0.27846454276107374


@dataclass(frozen=True)
class FrameConfig:
    """Constants of frames and weights; the defaults are the published ones.

    Attributes
    ----------
    beta : float
        Sharpness of the smooth extremes of distances, 1/Å.
    taper : float
        Width over which a neighbour leaves the inner cutoff, Å.
    collinearity : float
        A pair whose squared sine is above this plus its width shapes the inner cutoff in full.
    collinearity_width : float
        Frames exist above `collinearity` - `collinearity_width`.
    beta_weights : float
        Sharpness of the smooth maximum of weights.
    num_prunings : int
        How often small weights are removed.
    pruning_threshold, pruning_width : float
        In units of the smooth maximum: a weight is removed below the threshold and untouched above
        the sum of both.
    """

    beta: float = 5.0
    taper: float = 0.15
    collinearity: float = 0.2
    collinearity_width: float = 0.15
    beta_weights: float = 1.0
    num_prunings: int = 4
    pruning_threshold: float = 0.9
    pruning_width: float = 0.1

    # Below these largest weights the frame-free limit takes over and nothing is pruned.
    hand_over: float = 0.5
    pruning_onset: float = 0.5
    pruning_onset_width: float = 0.25

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrameConfig:
        """Constants from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown frame constant(s) {unknown}; known are {sorted(known)}")
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Frames:
    """Weighted frames, several for each atom.

    Attributes
    ----------
    atom : Tensor, shape (n_frames,), int64
        Centre of each frame, ascending.
    matrix : Tensor, shape (n_frames, 3, 3)
        Columns e1, e2, e3; x @ matrix are the coordinates of x.
    weight : Tensor, shape (n_frames,)
        Positive, not normalised.
    first, second : Tensor, shape (n_frames,), int64
        Edges to the neighbours that give e1 and the plane.
    """

    atom: Tensor
    matrix: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor

    def select(self, keep: Tensor) -> Frames:
        """The frames where the mask or index `keep` says so."""
        return Frames(
            self.atom[keep], self.matrix[keep], self.weight[keep],
            self.first[keep], self.second[keep],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames of a structure, and how far each group of atoms is from having any.

    Attributes
    ----------
    frames : Frames
        Pruned.
    group : Tensor, shape (n_frames,), int64
        Group of each frame: its atom, unless groups were given.
    frame_free : Tensor, shape (n_groups,)
        Weight of what replaces the frames, from 0 (some frame is good) to 1 (there is none).
    inner_cutoffs : Tensor, shape (n_atoms,)
        In Å.
    """

    frames: Frames
    group: Tensor
    frame_free: Tensor
    inner_cutoffs: Tensor


def neighbor_pairs(centre: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs a < b of positions in the sorted `centre` (n,) that share a centre."""
    n = len(centre)
    device = centre.device
    position = torch.arange(n, device=device)
    later = torch.searchsorted(centre, centre, right=True) - position - 1
    first = position.repeat_interleave(later)
    begin = torch.cumsum(later, 0) - later
    offset = torch.arange(len(first), device=device) - begin[first]
    return first, first + 1 + offset


def local_frames(
    centre: Tensor,
    vectors: Tensor,
    n_atoms: int,
    outer_cutoff: float,
    config: FrameConfig,
    group: Tensor | None = None,
    n_groups: int = 0,
) -> FrameSet:
    """Frames of all atoms, pruned.

    Parameters
    ----------
    centre : Tensor, shape (n_edges,), int64
        Centre of each edge, ascending.
    vectors : Tensor, shape (n_edges, 3), float64
        Edge vectors in Å.
    n_atoms : int
    outer_cutoff : float
        Neighbours beyond it do not shape the inner cutoff, Å, and those beyond it plus
        ``config.taper`` form no frames. A model with cutoff R is continuous with
        R - ``config.taper``.
    config : FrameConfig
    group : Tensor, optional, shape (n_atoms,), int64
        Atoms of one group share their frames, which are pruned together; by default each atom is
        a group.
    n_groups : int, optional
        Their number.

    Returns
    -------
    FrameSet
    """
    if group is None:
        group, n_groups = torch.arange(n_atoms, device=centre.device), n_atoms
    r2 = vectors.detach().square().sum(-1)
    # the inner cutoff reaches at most one taper beyond the outer one, and frames fade out there
    near = torch.nonzero(r2 <= (outer_cutoff + config.taper) ** 2)[:, 0]
    atom = centre[near]
    vector = vectors[near]
    r = vector.square().sum(-1).sqrt()
    unit = vector / r[:, None]
    a, b = neighbor_pairs(atom)
    # many pairs shape the inner cutoff and few lie inside it: only these get a cross product;
    # 1 - cos² loses digits where z is small, which is where no pair counts
    cosine = torch.linalg.vecdot(unit.index_select(0, a), unit.index_select(0, b))
    z = 1.0 - cosine.square()
    inner = inner_cutoffs(r, z, a, b, atom, n_atoms, outer_cutoff, config)
    frames = paired_frames(unit, r, a, b, atom, inner, config)
    frames = replace(frames, first=near[frames.first], second=near[frames.second])
    of_frame = group[frames.atom]
    largest = largest_weight(frames.weight, of_frame, n_groups, config)
    frame_free = cutoff_step(largest, config.hand_over, config.hand_over)
    frames = pruned(frames, group, largest, config)
    return FrameSet(frames, group[frames.atom], frame_free, inner)


def inner_cutoffs(
    r: Tensor, z: Tensor, a: Tensor, b: Tensor, atom: Tensor, n_atoms: int,
    outer_cutoff: float, config: FrameConfig,
) -> Tensor:  # fmt: skip
    r"""Radius (n_atoms,) in Å that holds the nearest pair of neighbours which spans a plane.

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
    v = ra * share + rb * (1.0 - share) + _LAMBERT / config.beta
    atoms = torch.arange(n_atoms, device=r.device)
    smallest = smooth_maximum(
        torch.cat([r.new_full((n_atoms,), outer_cutoff), v]),
        torch.cat([r.new_ones(n_atoms), p]),
        torch.cat([atoms, atom]),
        n_atoms,
        -config.beta,
    )
    return smallest + config.taper


def paired_frames(
    unit: Tensor, r: Tensor, a: Tensor, b: Tensor, atom: Tensor, inner: Tensor, config: FrameConfig
) -> Frames:  # fmt: skip
    """Frames of both orders of every pair inside the inner cutoff, sorted by atom."""
    threshold = config.collinearity - config.collinearity_width
    limit = inner[atom]
    inside = r.detach() < limit.detach()
    near = torch.nonzero(inside[a] & inside[b])[:, 0]
    a, b = a[near], b[near]
    cross = torch.linalg.cross(unit.index_select(0, a), unit.index_select(0, b))
    keep = torch.nonzero(cross.detach().square().sum(-1) > threshold)[:, 0]
    a, b, cross = a[keep], b[keep], cross.index_select(0, keep)
    z = cross.square().sum(-1)
    taper = cutoff_step(r, limit, config.taper)
    linear = (z - threshold) / config.collinearity_width
    q = onset(z, threshold, config.collinearity_width)
    weight = taper.index_select(0, a) * taper.index_select(0, b) * q * linear
    normal = cross / z.sqrt()[:, None]
    first, second = torch.cat([a, b]), torch.cat([b, a])
    e1, e2 = unit.index_select(0, first), torch.cat([normal, -normal])
    matrix = torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=-1)
    order = torch.argsort(atom[first], stable=True)
    first, second = first[order], second[order]
    return Frames(atom[first], matrix[order], torch.cat([weight, weight])[order], first, second)


def largest_weight(weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig) -> Tensor:
    """Smooth maximum (n_groups,) of the weights of each group; 0 without any."""
    return smooth_maximum(weight, weight, group, n_groups, config.beta_weights)


def pruned(frames: Frames, group: Tensor, largest: Tensor, config: FrameConfig) -> Frames:
    """Frames with the small weights of each group smoothly removed.

    Each pass multiplies a weight w by a step that rises from 0 at t m to 1 at (t + d) m, where m is
    the smooth maximum of the group. Groups whose weights are all small are left as they are.

    Parameters
    ----------
    frames : Frames
    group : Tensor, shape (n_atoms,)
    largest : Tensor, shape (n_groups,)
        From `largest_weight`.
    config : FrameConfig
    """
    n_groups = len(largest)
    off = cutoff_step(largest, config.pruning_onset, config.pruning_onset_width)
    for _ in range(config.num_prunings):
        frames = significant(frames, group, n_groups)
        member = group[frames.atom]
        weight = frames.weight
        m = largest_weight(weight, member, n_groups, config)[member]
        step = onset(weight, config.pruning_threshold * m, config.pruning_width * m)
        frames = replace(frames, weight=weight * (step * (1.0 - off[member]) + off[member]))
    return significant(frames, group, n_groups)


def significant(frames: Frames, group: Tensor, n_groups: int) -> Frames:
    """Frames without those that could change an average by less than float64 resolves."""
    weight, member = frames.weight.detach(), group[frames.atom]
    total = segment_sum(weight, member, n_groups)
    return frames.select(torch.nonzero(weight > 1e-17 * total[member])[:, 0])
