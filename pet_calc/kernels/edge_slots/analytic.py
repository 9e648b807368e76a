"""The same operation with its derivative written out: a gather, where autograd would scatter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def edges_to_slots(x: Tensor, slot_edge: Tensor, edge_slot: Tensor) -> Tensor:
    """Values of the edges in the slots of a layout; see the reference."""
    return _EdgesToSlots.apply(x, slot_edge, edge_slot)  # type: ignore[no-untyped-call]


class _EdgesToSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slot_edge: Tensor, edge_slot: Tensor) -> Tensor:
        ctx.save_for_backward(slot_edge, edge_slot)
        padded = torch.cat([x, x.new_zeros((1, *x.shape[1:]))])
        return padded.index_select(0, slot_edge)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        slot_edge, edge_slot = ctx.saved_tensors
        # no edge has two slots, so the transposed map is a gather by the inverse
        return edges_to_slots(grad, edge_slot, slot_edge), None, None
