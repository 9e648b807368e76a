"""Attention of every atom over all periodic images of its neighbors."""

from pet_calc.kernels.lattice_attention.dispatch import lattice_attention
from pet_calc.kernels.lattice_attention.layout import ImageLayout, image_layout

__all__ = ["ImageLayout", "image_layout", "lattice_attention"]
