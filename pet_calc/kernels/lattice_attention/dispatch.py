"""Choice of the implementation."""

from __future__ import annotations

from torch import Tensor

from pet_calc.kernels.lattice_attention import padded
from pet_calc.kernels.lattice_attention.layout import ImageLayout


def lattice_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    falloff: Tensor,
    squared_distance: Tensor,
    log_weight: Tensor,
    basis: Tensor,
    layout: ImageLayout,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of every atom over periodic images; see the reference."""
    return padded.lattice_attention(
        query, key, value, falloff, squared_distance, log_weight, basis, layout, scale
    )
