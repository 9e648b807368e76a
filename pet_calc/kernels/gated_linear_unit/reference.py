"""Reference implementation; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_linear_unit(x: Tensor) -> Tensor:
    r"""First half of the last axis times the sigmoid of its second half [arXiv:1612.08083].

    .. math:: y = v\,\sigma(g), \qquad x = [v, g]

    Parameters
    ----------
    x : Tensor, shape (..., 2 width)

    Returns
    -------
    Tensor, shape (..., width)
    """
    value, gate = x.chunk(2, dim=-1)
    return value * torch.sigmoid(gate)
