"""Smooth cutoff functions of the distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bump(distance: Tensor, cutoff: float | Tensor, width: float) -> Tensor:
    r"""Infinitely smooth step from 1 at ``cutoff - width`` to 0 at ``cutoff``.

    .. math:: f(r) = \tfrac12\left[1 + \tanh\left(\cot(\pi s)\right)\right], \qquad
              s = \frac{r - (R - w)}{w} \in [10^{-6}, 1 - 10^{-6}]

    The cutoff of PET since metatrain's checkpoint version 12 ("Bump").

    Parameters
    ----------
    distance : Tensor
        r in Å.
    cutoff : float or Tensor
        R in Å; a tensor is broadcast against `distance` and differentiated as well.
    width : float
        w in Å.
    """
    s = ((distance - (cutoff - width)) / width).clamp(1e-6, 1.0 - 1e-6)
    x = math.pi * s
    # Not 1 / tan(x): its second derivative loses all digits at x = pi/2. Not (1 + tanh(y)) / 2:
    # it cancels where f is small, and the attention takes log f; in float32 that cost 3e-3 eV/Å
    # in the forces on water.
    return torch.sigmoid(2.0 * torch.cos(x) / torch.sin(x))


def bump_slope(distance: Tensor, cutoff: float | Tensor, width: float) -> Tensor:
    r"""Derivative of `bump` with respect to the cutoff R, in 1/Å.

    .. math:: \frac{\partial f}{\partial R} = \frac{2 \pi}{w}\,\frac{f (1 - f)}{\sin^2(\pi s)}
    """
    s = (distance - (cutoff - width)) / width
    x = math.pi * s.clamp(1e-6, 1.0 - 1e-6)
    y = 2.0 * torch.cos(x) / torch.sin(x)
    slope = 2.0 * math.pi / width * torch.sigmoid(y) * torch.sigmoid(-y) / torch.sin(x).square()
    return torch.where((s > 0) & (s < 1), slope, torch.zeros_like(slope))


def cosine(distance: Tensor, cutoff: float | Tensor, width: float) -> Tensor:
    r"""Step from 1 at ``cutoff - width`` to 0 at ``cutoff``, once continuously differentiable.

    .. math:: f(r) = \tfrac12\left[1 + \cos(\pi s)\right], \qquad
              s = \frac{r - (R - w)}{w} \in [0, 1]

    The cutoff of the first PET ("Cosine"). Parameters as in `bump`.
    """
    s = ((distance - (cutoff - width)) / width).clamp(0.0, 1.0)
    # written with a square, which is accurate where f is small
    return torch.cos(0.5 * math.pi * s).square()
