r"""Which views of an environment enter the average, and with which weights.

Three kinds, all invariant under rotations by construction; x' are the coordinates that the backbone
sees of an edge vector x:

frame
    x' = x Q with a frame Q of two neighbors. Its mirror image, Q diag(1, -1, 1), has the same
    weight, which adds inversion to the symmetry.
axial
    x' = (x·u, ±|x × u|, 0) with the direction u to one neighbor. Environments without two
    directions, such as linear molecules, have no frames. In these coordinates the azimuth about u
    is dropped, so that a collinear environment is seen as it is and a bent one is seen flattened;
    the mean over both signs is smooth although \|x × u\| is not.
isotropic
    x' = (\|x\|, 0, 0), where not even one neighbor is near.

The weights hand over smoothly: with w_k those of frames, v_j those of axes, which fall to zero
beyond an inner cutoff of their own, and s(·) a step from 1 to 0 at ``hand_over``,

.. math::

    y = \frac{\sum_k w_k y_k + s(\max w)\,\bigl(\sum_j v_j y_j + s(\max v)\, y_\mathrm{iso}\bigr)}
             {\sum_k w_k + s(\max w)\,\bigl(\sum_j v_j + s(\max v)\bigr)}

The published protocol evaluates a separately trained invariant model where there are no frames;
this form needs none and agrees with the limit of the frames as an environment becomes collinear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.kernels.ecse_frames import AXIAL, FRAME, ISOTROPIC, oriented
from pet_calc.kernels.ecse_frames.switches import cutoff_step, segment_sum, smooth_maximum
from pet_calc.models.ecse.frames import FrameConfig, FrameSet, local_frames

__all__ = ["AXIAL", "FRAME", "ISOTROPIC", "Orientations", "drawn", "orientations", "oriented"]


@dataclass(frozen=True, eq=False)
class Orientations:
    """Views of the environments of atoms, or of whole systems.

    Attributes
    ----------
    group : Tensor, shape (n_views,), int64
        Atom or system that each view belongs to, ascending.
    weight : Tensor, shape (n_views,)
        They sum to 1 over the views of a group.
    matrix : Tensor, shape (n_views, 3, 3)
        Frame in its columns; of axial views the first column is the axis, isotropic ones use none.
    sign : Tensor, shape (n_views,)
        Factor ±1 on the second coordinate.
    kind : Tensor, shape (n_views,), int64
        FRAME, AXIAL or ISOTROPIC.
    """

    group: Tensor
    weight: Tensor
    matrix: Tensor
    sign: Tensor
    kind: Tensor

    @property
    def n_views(self) -> int:
        """Number of views."""
        return len(self.group)

    def select(self, index: Tensor | slice) -> Orientations:
        """The views of a mask or an index."""
        return Orientations(
            self.group[index], self.weight[index], self.matrix[index],
            self.sign[index], self.kind[index],
        )  # fmt: skip


def drawn(views: Orientations, numbers: Tensor) -> Orientations:
    """One view of each group, drawn with its weight as the probability.

    The drawn view has the weight 1 as a constant: averages over draws are those over the views,
    but their derivatives lack the change of the weights.

    Parameters
    ----------
    views : Orientations
    numbers : Tensor, shape (n_groups,)
        Uniform in [0, 1).
    """
    weight = views.weight.detach()
    upto = torch.cumsum(weight, 0)
    n_groups = len(numbers)
    total = segment_sum(weight, views.group, n_groups)
    before = torch.cumsum(total, 0) - total
    # the last view of a group takes what rounding leaves
    target = before + numbers.to(weight.dtype) * total
    last = torch.searchsorted(views.group, torch.arange(n_groups, device=upto.device), right=True)
    index = torch.minimum(torch.searchsorted(upto, target, right=True), last - 1)
    chosen = views.select(index)
    return replace(chosen, weight=torch.ones_like(chosen.weight).detach())


def orientations(
    center: Tensor, vectors: Tensor, n_atoms: int, cutoff: float, config: FrameConfig,
    *, group: Tensor | None = None, n_groups: int = 0, mirrored: bool = True,
) -> Orientations:  # fmt: skip
    """Views of every atom, or of every group of atoms.

    Parameters
    ----------
    center : Tensor, shape (n_edges,), int64
        Ascending.
    vectors : Tensor, shape (n_edges, 3), float64
        In Å.
    n_atoms : int
    cutoff : float
        Of the backbone, Å.
    config : FrameConfig
    group : Tensor, optional, shape (n_atoms,), int64
        Ascending; by default each atom is a group.
    n_groups : int
        Number of groups, if given.
    mirrored : bool
        Symmetry under O(3) rather than SO(3) alone.
    """
    if group is None:
        group, n_groups = torch.arange(n_atoms, device=center.device), n_atoms
    outer = cutoff - config.taper
    found = local_frames(center, vectors, n_atoms, outer, config, group=group, n_groups=n_groups)
    frames = found.frames
    signs = (1.0, -1.0) if mirrored else (1.0,)
    parts = [(found.group, frames.weight / len(signs), frames.matrix, s, FRAME) for s in signs]
    if bool((found.frame_free > 0).any()):
        parts += frame_free_parts(center, vectors, n_atoms, outer, config, found, group)
    return assembled(parts, n_groups)


Part = tuple[Tensor, Tensor, Tensor, float, int]


def frame_free_parts(
    center: Tensor, vectors: Tensor, n_atoms: int, outer: float, config: FrameConfig,
    found: FrameSet, group: Tensor,
) -> list[Part]:  # fmt: skip
    """Axial and isotropic views of the groups whose frames are weak or absent."""
    n_groups = len(found.frame_free)
    needed = found.frame_free.detach() > 0
    near = vectors.detach().square().sum(-1) <= outer**2
    edge = torch.nonzero(needed[group[center]] & near)[:, 0]
    atom, vector = center[edge], vectors[edge]
    r = vector.square().sum(-1).sqrt()
    # a neighbor near the outer cutoff shapes the inner one as little as it enters it
    inner = smooth_maximum(
        torch.cat([r.new_full((n_atoms,), outer), r]),
        torch.cat([r.new_ones(n_atoms), cutoff_step(r, outer, config.taper)]),
        torch.cat([torch.arange(n_atoms, device=r.device), atom]),
        n_atoms,
        -config.beta,
    ) + config.taper  # fmt: skip
    weight = cutoff_step(r, inner[atom], config.taper) * cutoff_step(r, outer, config.taper)
    keep = torch.nonzero(weight.detach() > 0)[:, 0]
    weight, member = weight[keep], group[atom[keep]]
    axis = vector[keep] / r[keep, None]
    matrix = torch.cat([axis[..., None], torch.zeros_like(axis)[..., None].expand(-1, -1, 2)], -1)
    largest = smooth_maximum(weight, weight, member, n_groups, config.beta_weights)
    last = cutoff_step(largest, config.hand_over, config.hand_over) * found.frame_free
    shared = 0.5 * weight * found.frame_free[member]
    groups = torch.nonzero(last.detach() > 0)[:, 0]
    return [
        (member, shared, matrix, 1.0, AXIAL),
        (member, shared, matrix, -1.0, AXIAL),
        (groups, last[groups], matrix.new_zeros(len(groups), 3, 3), 1.0, ISOTROPIC),
    ]


def assembled(parts: list[Part], n_groups: int) -> Orientations:
    """All parts as one set of views, sorted by group, with normalized weights."""
    group = torch.cat([p[0] for p in parts])
    order = torch.argsort(group, stable=True)
    group = group[order]
    weight = torch.cat([p[1] for p in parts])[order]
    total = segment_sum(weight, group, n_groups)
    sizes = torch.tensor([len(p[0]) for p in parts], device=group.device)
    signs = torch.tensor([p[3] for p in parts], dtype=weight.dtype, device=group.device)
    kinds = torch.tensor([p[4] for p in parts], device=group.device)
    return Orientations(
        group=group,
        weight=weight / total[group],
        matrix=torch.cat([p[2] for p in parts])[order],
        sign=signs.repeat_interleave(sizes)[order],
        kind=kinds.repeat_interleave(sizes)[order],
    )
