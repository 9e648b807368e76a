"""Division of a vector by its root mean square."""

from pet_calc.kernels.rms_direction.analytic import rms_direction

__all__ = ["rms_direction"]
