"""Smooth cutoff functions of the distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bump(distance: Tensor, cutoff: float, width: float) -> Tensor:
    r"""Infinitely smooth step from 1 at ``cutoff - width`` to 0 at ``cutoff``.

    .. math:: f(r) = \tfrac12\left[1 + \tanh\left(\cot(\pi s)\right)\right], \qquad
              s = \frac{r - (R - w)}{w} \in [10^{-6}, 1 - 10^{-6}]

    The cutoff of PET since metatrain's checkpoint version 12 ("Bump").

    Parameters
    ----------
    distance : Tensor
        r in Å.
    cutoff, width : float
        R and w in Å.
    """
    s = ((distance - (cutoff - width)) / width).clamp(1e-6, 1.0 - 1e-6)
    x = math.pi * s
    # Not 1 / tan(x): its second derivative loses all digits at x = pi/2. Not (1 + tanh(y)) / 2:
    # it cancels where f is small, and the attention takes log f; in float32 that cost 3e-3 eV/Å
    # in the forces on water.
    return torch.sigmoid(2.0 * torch.cos(x) / torch.sin(x))
