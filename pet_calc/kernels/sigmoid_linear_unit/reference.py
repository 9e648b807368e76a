"""Reference implementation; it defines the operation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def sigmoid_linear_unit(x: Tensor) -> Tensor:
    r"""A number times its sigmoid, SiLU [arXiv:1702.03118].

    .. math:: y = x\,\sigma(x)

    Parameters
    ----------
    x : Tensor

    Returns
    -------
    Tensor, shape as x
    """
    return functional.silu(x)
