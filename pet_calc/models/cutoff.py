"""Smooth cutoff functions of the distance, as models know them."""

from pet_calc.kernels.cutoff_functions import bump, bump_slope, cosine

__all__ = ["bump", "bump_slope", "cosine"]
