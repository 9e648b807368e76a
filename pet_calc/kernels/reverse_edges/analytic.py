"""The same operation with its derivative written out: a gather, where autograd would scatter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reverse_edges(x: Tensor, reverse: Tensor) -> Tensor:
    """Value of the reverse edge for every edge; see the reference."""
    return _ReverseEdges.apply(x, reverse)  # type: ignore[no-untyped-call]


class _ReverseEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return x.index_select(0, reverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (reverse,) = ctx.saved_tensors
        # the permutation is its own inverse, thus its own transpose
        return reverse_edges(grad, reverse), None
