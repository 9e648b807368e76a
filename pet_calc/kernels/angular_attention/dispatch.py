"""Choice of the implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.kernels import paths
from pet_calc.kernels.angular_attention import analytic, reference
from pet_calc.kernels.cutoff_attention import cutoff_attention


def angular_attention(
    made: Tensor, harmonics: Tensor, log_weight: Tensor, heads: int, scale: float, degree: int
) -> Tensor:
    """Attention of heads that carry spherical harmonics; see the reference.

    Where the Triton kernels of the cutoff attention are wanted, they do what lies between the
    packing of queries, keys and values and the invariants; `torch.compile` fuses all by itself.
    """
    if torch.compiler.is_compiling() or paths.triton_wanted(made.device):
        return reference.angular_attention(
            made, harmonics, log_weight, heads, scale, degree, cutoff_attention
        )
    return analytic.angular_attention(made, harmonics, log_weight, heads, scale, degree)
