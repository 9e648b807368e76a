r"""A fixed grid of rotations: Lebedev directions times equally spaced angles about them.

Averages over it are what other programs offer against the missing symmetry. They are not exact:
what remains depends on the orientation of the input relative to the grid.
"""

from __future__ import annotations

import torch
from scipy.integrate import lebedev_rule
from torch import Tensor

from pet_calc.models.ecse.orientations import FRAME, Orientations


def rotations(order: int) -> tuple[Tensor, Tensor]:
    """Rotation matrices (n, 3, 3) and their weights (n,), float64, which sum to 1.

    A function whose dependence on the rotation is a polynomial up to the degree `order` is averaged
    exactly: the directions of the third axis form a Lebedev rule of that degree, the angles about
    it a trapezoidal rule of 2 `order` + 1 points.

    Parameters
    ----------
    order : int
        Odd; 3 has 6 directions and 7 angles.
    """
    if order < 3 or order % 2 == 0:
        raise ValueError(f"`order` must be odd and at least 3, got {order}")
    points, weights = lebedev_rule(order)
    axis = torch.from_numpy(points.T.copy())  # (n, 3)
    # some direction across the axis: that of the coordinate axis which it is least along
    least = torch.eye(3, dtype=torch.float64)[axis.abs().argmin(dim=1)]
    first = torch.nn.functional.normalize(torch.linalg.cross(axis, least), dim=1)
    second = torch.linalg.cross(axis, first)
    n = 2 * order + 1
    angle = 2.0 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
    e1 = cos * first[:, None] + sin * second[:, None]
    e2 = cos * second[:, None] - sin * first[:, None]
    e3 = axis[:, None].expand_as(e1)
    matrices = torch.stack([e1, e2, e3], dim=-1).reshape(-1, 3, 3)
    share = torch.from_numpy(weights.copy()) / weights.sum()
    return matrices, (share[:, None] / n).expand(-1, n).reshape(-1)


def quadrature(
    order: int, n_groups: int, device: torch.device, *, mirrored: bool = True
) -> Orientations:
    """The same views for every group: all rotations of the grid, and their mirror images."""
    matrix, weight = (t.to(device) for t in rotations(order))
    sign = torch.ones_like(weight)
    if mirrored:
        matrix, sign = torch.cat([matrix, matrix]), torch.cat([sign, -sign])
        weight = torch.cat([weight, weight]) / 2.0
    n = len(weight)
    return Orientations(
        group=torch.arange(n_groups, device=device).repeat_interleave(n),
        weight=weight.repeat(n_groups),
        matrix=matrix.repeat(n_groups, 1, 1),
        sign=sign.repeat(n_groups),
        kind=torch.full((n * n_groups,), FRAME, dtype=torch.int64, device=device),
    )
