"""Reference implementation; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def edges_to_slots(x: Tensor, slot_edge: Tensor, edge_slot: Tensor) -> Tensor:
    """Values of the edges in the slots of a layout, 0 in slots without edge.

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
    return torch.cat([x, x.new_zeros((1, *x.shape[1:]))])[slot_edge]
