"""The gated linear unit."""

from pet_calc.kernels.gated_linear_unit.analytic import gated_linear_unit

__all__ = ["gated_linear_unit"]
