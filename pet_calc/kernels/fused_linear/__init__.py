"""A linear map of tokens with what precedes and follows it."""

from pet_calc.kernels.fused_linear.dispatch import fused_linear

__all__ = ["fused_linear"]
