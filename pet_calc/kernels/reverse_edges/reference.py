"""Reference implementation; it defines the operation."""

from __future__ import annotations

from torch import Tensor


def reverse_edges(x: Tensor, reverse: Tensor) -> Tensor:
    """Value of the reverse edge for every edge.

    Parameters
    ----------
    x : Tensor, shape (n_edges, ...)
    reverse : Tensor, shape (n_edges,), int64
        Index of the reverse edge; its own inverse, reverse[reverse[e]] = e.

    Returns
    -------
    Tensor, shape (n_edges, ...)
    """
    return x[reverse]
