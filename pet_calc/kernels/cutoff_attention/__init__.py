"""Softmax attention whose keys are weighted by a smooth cutoff."""

from pet_calc.kernels.cutoff_attention.dispatch import Backend, cutoff_attention
from pet_calc.kernels.paths import Precision

__all__ = ["Backend", "Precision", "cutoff_attention"]
