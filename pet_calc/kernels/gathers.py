"""Rearrangements of tensors: references, and the same with their derivatives written out.

A derivative written out takes fewer passes over memory than autograd's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def concatenate(*parts: Tensor, dim: int) -> Tensor:
    """Tensors behind each other, with a split as derivative.

    torch's derivative is a slice for each part, and the derivative of a slice fills a tensor of
    full size with zeros and copies into it, which are then added up.

    Parameters
    ----------
    *parts : Tensor
        Of equal shape but along `dim`.
    dim : int

    Returns
    -------
    Tensor
    """
    if torch.compiler.is_compiling() or len(parts) == 1:
        return concatenate_reference(*parts, dim=dim)
    return _Concatenate.apply(dim, *parts)  # type: ignore[no-untyped-call]


def concatenate_reference(*parts: Tensor, dim: int) -> Tensor:
    """Reference of `concatenate`."""
    return torch.cat(parts, dim)


def edges_to_slots(x: Tensor, slot_edge: Tensor, edge_slot: Tensor) -> Tensor:
    """Values of the edges in the slots of a layout, 0 in slots without edge.

    The derivative is a gather, where autograd would scatter.

    Parameters
    ----------
    x : Tensor, shape (n_edges, ...)
    slot_edge : Tensor, shape (n_slots,), int64
        Edge in each slot; n_edges where there is none.
    edge_slot : Tensor, shape (n_edges,), int64
        Slot of each edge, n_slots where it has none: the inverse of `slot_edge`.

    Returns
    -------
    Tensor, shape (n_slots, ...)
    """
    return _EdgesToSlots.apply(x, slot_edge, edge_slot)  # type: ignore[no-untyped-call]


def edges_to_slots_reference(x: Tensor, slot_edge: Tensor, edge_slot: Tensor) -> Tensor:
    """Reference of `edges_to_slots`."""
    return torch.cat([x, x.new_zeros((1, *x.shape[1:]))])[slot_edge]


def reverse_edges(x: Tensor, reverse: Tensor) -> Tensor:
    """Value of the reverse edge for every edge.

    The derivative is a gather, where autograd would scatter.

    Parameters
    ----------
    x : Tensor, shape (n_edges, ...)
    reverse : Tensor, shape (n_edges,), int64
        Index of the reverse edge; its own inverse, reverse[reverse[e]] = e.

    Returns
    -------
    Tensor, shape (n_edges, ...)
    """
    return _ReverseEdges.apply(x, reverse)  # type: ignore[no-untyped-call]


def reverse_edges_reference(x: Tensor, reverse: Tensor) -> Tensor:
    """Reference of `reverse_edges`."""
    return x[reverse]


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *grad.split(ctx.sizes, ctx.dim)


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
