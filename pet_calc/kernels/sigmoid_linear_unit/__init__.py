"""The sigmoid linear unit."""

from pet_calc.kernels.sigmoid_linear_unit.analytic import sigmoid_linear_unit

__all__ = ["sigmoid_linear_unit"]
