"""Layer normalization without weights."""

from pet_calc.kernels.layer_direction.analytic import layer_direction

__all__ = ["layer_direction"]
