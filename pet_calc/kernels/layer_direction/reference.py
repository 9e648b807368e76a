"""Reference implementation; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def layer_direction(x: Tensor, eps: float) -> Tensor:
    r"""Deviations from the mean of the last axis over their root mean square [arXiv:1607.06450].

    .. math:: y = \frac{x - \langle x \rangle}
                       {\sqrt{\langle (x - \langle x \rangle)^2 \rangle + \epsilon}}

    Parameters
    ----------
    x : Tensor, shape (..., width)
    eps : float

    Returns
    -------
    Tensor, shape (..., width)
    """
    # not torch's function, whose third derivative is wrong (torch 2.13)
    deviation = x - x.mean(-1, keepdim=True)
    return deviation * torch.rsqrt(deviation.square().mean(-1, keepdim=True) + eps)
