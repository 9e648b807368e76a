r"""Local coordinate frames of atoms from ordered pairs of their neighbors, with smooth weights.

Neighbors j and k of an atom, in the directions u_j and u_k, span the right-handed frame

.. math:: e_1 = u_j, \quad e_2 = \frac{u_j \times u_k}{|u_j \times u_k|}, \quad e_3 = e_1 \times e_2

and its weight falls smoothly to zero as either neighbor leaves an inner cutoff or as the three
atoms become collinear. The inner cutoff follows the environment, so that a few near neighbors
suffice and at least one frame keeps its weight. Definitions of Pozdnyakov & Ceriotti
[arXiv:2305.19302] with the outer cutoff drawn in by the taper, without which a neighbor that
enters the cutoff of the model can bring a frame of full weight with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.kernels.ecse_frames import FrameConfig, pair_weights, pruned_weights
from pet_calc.kernels.ecse_frames.switches import segment_sum

__all__ = ["FrameConfig", "FrameSet", "Frames", "local_frames"]


@dataclass(frozen=True, eq=False)
class Frames:
    """Weighted frames, several for each atom.

    Attributes
    ----------
    atom : Tensor, shape (n_frames,), int64
        Center of each frame, ascending.
    matrix : Tensor, shape (n_frames, 3, 3)
        Columns e1, e2, e3; x @ matrix are the coordinates of x.
    weight : Tensor, shape (n_frames,)
        Positive, not normalized.
    first, second : Tensor, shape (n_frames,), int64
        Edges to the neighbors that give e1 and the plane.
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


def local_frames(
    center: Tensor,
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
    center : Tensor, shape (n_edges,), int64
        Center of each edge, ascending.
    vectors : Tensor, shape (n_edges, 3), float64
        Edge vectors in Å.
    n_atoms : int
    outer_cutoff : float
        Neighbors beyond it do not shape the inner cutoff, Å, and those beyond it plus
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
        group, n_groups = torch.arange(n_atoms, device=center.device), n_atoms
    r2 = vectors.detach().square().sum(-1)
    # the inner cutoff reaches at most one taper beyond the outer one, and frames fade out there
    near = torch.nonzero(r2 <= (outer_cutoff + config.taper) ** 2)[:, 0]
    atom = center[near]
    vector = vectors[near]
    r = vector.square().sum(-1).sqrt()
    unit = vector / r[:, None]
    a, b, weight, inner = pair_weights(r, unit, atom, n_atoms, outer_cutoff, config)
    of_pair = group[atom[a]]
    weight, frame_free = pruned_weights(weight, of_pair, n_groups, config)
    keep = significant(weight, of_pair, n_groups)
    frames = paired_frames(unit, a[keep], b[keep], atom, weight[keep])
    frames = replace(frames, first=near[frames.first], second=near[frames.second])
    return FrameSet(frames, group[frames.atom], frame_free, inner)


def paired_frames(unit: Tensor, a: Tensor, b: Tensor, atom: Tensor, weight: Tensor) -> Frames:
    """Frames of both orders of every pair (a, b), sorted by atom."""
    cross = torch.linalg.cross(unit.index_select(0, a), unit.index_select(0, b))
    normal = cross / cross.square().sum(-1).sqrt()[:, None]
    first, second = torch.cat([a, b]), torch.cat([b, a])
    e1, e2 = unit.index_select(0, first), torch.cat([normal, -normal])
    matrix = torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=-1)
    order = torch.argsort(atom[first], stable=True)
    first, second = first[order], second[order]
    return Frames(atom[first], matrix[order], torch.cat([weight, weight])[order], first, second)


def significant(weight: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Where a weight can change an average by more than float64 resolves."""
    weight = weight.detach()
    total = segment_sum(weight, group, n_groups)
    return torch.nonzero(weight > 1e-17 * total[group])[:, 0]
