"""Gaussians in which distances, angles and the like are expanded."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

#: Exponent at which they end: 9e-27, which is nothing beside 1 in any precision.
LARGEST_EXPONENT: Final = 60.0


def gaussians(x: Tensor, centers: Tensor, rate: float) -> Tensor:
    r"""Gaussians of numbers about given centers.

    .. math:: e^{-\min(\gamma (x - c_k)^2,\; 60)}

    The exponent is bounded because numbers too small to be normal (below 1e-38 in float32) cost
    a CPU a hundred times the time of others in all that they are multiplied with.

    Parameters
    ----------
    x : Tensor, shape (...)
    centers : Tensor, shape (n,)
        c; taken in the dtype of `x`.
    rate : float
        γ, in 1 / unit(x)²; 1 / 2 s² for a standard deviation s.

    Returns
    -------
    Tensor, shape (..., n)
    """
    exponent = -rate * (x[..., None] - centers.to(x.dtype)).square()
    return torch.exp(exponent.clamp_min(-LARGEST_EXPONENT))
