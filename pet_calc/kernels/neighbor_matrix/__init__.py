"""A neighbor list of fixed shapes, built where the positions are."""

from pet_calc.kernels.neighbor_matrix.dispatch import (
    Backend,
    Method,
    chosen_method,
    neighbor_matrix,
    triton_refusal,
)
from pet_calc.kernels.neighbor_matrix.reference import image_counts

__all__ = [
    "Backend",
    "Method",
    "chosen_method",
    "image_counts",
    "neighbor_matrix",
    "triton_refusal",
]
