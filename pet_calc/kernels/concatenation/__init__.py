"""Concatenation, the inverse of a split."""

from pet_calc.kernels.concatenation.analytic import concatenate

__all__ = ["concatenate"]
