"""A neighbour list of fixed shapes, built where the positions are."""

from pet_calc.kernels.neighbor_matrix.dispatch import Backend, Method, neighbor_matrix
from pet_calc.kernels.neighbor_matrix.reference import image_counts

__all__ = ["Backend", "Method", "image_counts", "neighbor_matrix"]
