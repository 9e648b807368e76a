"""Attention over the tokens of one atom that sees the angles between its neighbors."""

from pet_calc.kernels.angular_attention.dispatch import angular_attention

__all__ = ["angular_attention"]
