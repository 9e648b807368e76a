"""Neighbor lists: vesin on the CPU, kernels on a GPU, and a Verlet skin."""

from pet_calc.kernels.neighbor_matrix import image_counts, neighbor_matrix
from pet_calc.neighbors.api import neighbor_list
from pet_calc.neighbors.verlet import VerletState, update_verlet

__all__ = [
    "VerletState",
    "image_counts",
    "neighbor_list",
    "neighbor_matrix",
    "update_verlet",
]
