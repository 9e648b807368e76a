"""Softmax attention whose keys are weighted by a smooth cutoff."""

from pet_calc.kernels.cutoff_attention.analytic import cutoff_attention

__all__ = ["cutoff_attention"]
