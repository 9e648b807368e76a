"""Attention of every atom over all periodic images of its neighbors."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.kernels.lattice_attention import padded
from pet_calc.kernels.lattice_attention.layout import ImageLayout, image_layout
from pet_calc.kernels.operation import operation

__all__ = ["ImageLayout", "image_layout", "lattice_attention"]


@operation(
    "lattice attention",
    "pet_calc.kernels.lattice_attention.triton:lattice_attention",
    dtypes=(torch.float32, torch.float64),
)
def lattice_attention(
    query: Tensor, key: Tensor, value: Tensor, falloff: Tensor, squared_distance: Tensor,
    log_weight: Tensor, basis: Tensor, layout: ImageLayout, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention of every atom over periodic images; see the reference."""
    return padded.lattice_attention(
        query, key, value, falloff, squared_distance, log_weight, basis, layout, scale
    )
