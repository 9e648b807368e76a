"""The same operation with a split as its derivative.

torch's is a slice for each part, and the derivative of a slice fills a tensor of full size with
zeros and copies into it, which are then added up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.concatenation import reference


def concatenate(*parts: Tensor, dim: int) -> Tensor:
    """Tensors behind each other; see the reference."""
    if torch.compiler.is_compiling() or len(parts) == 1:
        return reference.concatenate(*parts, dim=dim)
    return _Concatenate.apply(dim, *parts)  # type: ignore[no-untyped-call]


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *grad.split(ctx.sizes, ctx.dim)
