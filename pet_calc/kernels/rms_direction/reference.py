"""Reference implementation; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_direction(x: Tensor) -> Tensor:
    r"""Divide by the root mean square of the last axis [arXiv:1910.07467].

    .. math:: y = \frac{x}{\sqrt{\langle x^2 \rangle + \epsilon}}

    with the machine epsilon of the dtype as ε, as in ``torch.nn.RMSNorm``.

    Parameters
    ----------
    x : Tensor, shape (..., width)

    Returns
    -------
    Tensor, shape (..., width)
    """
    mean_square = x.square().mean(-1, keepdim=True)
    return x * torch.rsqrt(mean_square + torch.finfo(x.dtype).eps)
