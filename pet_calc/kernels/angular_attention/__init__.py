"""Attention over the tokens of one atom that sees the angles between its neighbors."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.kernels.angular_attention import analytic, reference
from pet_calc.kernels.cutoff_attention import cutoff_attention

__all__ = ["angular_attention"]


def angular_attention(
    made: Tensor, harmonics: Tensor, log_weight: Tensor, heads: int, scale: float, degree: int
) -> Tensor:
    """Attention of heads that carry spherical harmonics; see the reference.

    Where the Triton kernels of the cutoff attention are in force, they do what lies between the
    packing of queries, keys and values and the invariants; `torch.compile` fuses all by itself.
    """
    if torch.compiler.is_compiling() or cutoff_attention.selected:
        return reference.angular_attention(
            made, harmonics, log_weight, heads, scale, degree, cutoff_attention
        )
    return analytic.angular_attention(made, harmonics, log_weight, heads, scale, degree)
