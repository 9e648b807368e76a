"""Attention of every atom over all periodic images of its neighbors."""

from __future__ import annotations

import torch

from pet_calc.kernels.lattice_attention import padded
from pet_calc.kernels.lattice_attention.layout import ImageLayout, image_layout
from pet_calc.kernels.operation import operation

__all__ = ["ImageLayout", "image_layout", "lattice_attention"]


lattice_attention = operation(
    "lattice attention",
    "pet_calc.kernels.lattice_attention.triton:lattice_attention",
    dtypes=(torch.float32, torch.float64),
)(padded.lattice_attention)
