"""Softmax attention whose keys are weighted by a smooth cutoff."""

from pet_calc.kernels.cutoff_attention.dispatch import Backend, Precision, cutoff_attention

__all__ = ["Backend", "Precision", "cutoff_attention"]
