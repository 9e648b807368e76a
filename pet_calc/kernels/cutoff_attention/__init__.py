"""Softmax attention whose keys are weighted by a smooth cutoff."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from pet_calc.kernels.cutoff_attention import analytic
from pet_calc.kernels.operation import beyond, operation

__all__ = ["cutoff_attention"]

#: Most tokens of an atom for which one program holds its attention weights in registers.
MOST_TOKENS: Final = 128
#: Widest head, likewise.
WIDEST_HEAD: Final = 64


def limit(packed: Tensor, log_weight: Tensor, heads: int, scale: float) -> str | None:
    """Why the Triton kernels cannot take the tokens; None if they can."""
    width = packed.shape[2] // (3 * heads)
    return beyond(MOST_TOKENS, packed.shape[1], "tokens per atom") or beyond(
        WIDEST_HEAD, width, "numbers of a head"
    )


cutoff_attention = operation(
    "cutoff attention", "pet_calc.kernels.cutoff_attention.triton:cutoff_attention", limit
)(analytic.cutoff_attention)
