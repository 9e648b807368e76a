"""Normalizations of tokens that precede a linear map, and the absence of one.

Each offers ``then(linear, x)``, which is ``linear(norm(x))``, as `RMSNorm` does; with `gated`
followed by a gated linear unit.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from pet_calc.kernels.fused_linear import fused_linear
from pet_calc.kernels.norms import layer_direction


class Normalization(Protocol):
    """Something that normalizes tokens on their way into a linear map."""

    def then(self, linear: nn.Linear, x: Tensor, *, gated: bool = False) -> Tensor:
        """``linear(norm(x))`` for tokens (..., width)."""


class LayerNorm(nn.LayerNorm):
    """Layer normalization [arXiv:1607.06450], eps = 1e-5."""

    def then(self, linear: nn.Linear, x: Tensor, *, gated: bool = False) -> Tensor:
        """``linear(self(x))``, with weight and bias multiplied into the linear map."""
        weight, bias = linear.weight * self.weight, linear.bias + linear.weight @ self.bias
        return fused_linear(layer_direction(x, self.eps), weight, bias, gated=gated)


class NoNorm:
    """Tokens as they are."""

    def then(self, linear: nn.Linear, x: Tensor, *, gated: bool = False) -> Tensor:
        """``linear(x)``."""
        return fused_linear(x, linear.weight, linear.bias, gated=gated)


NO_NORM = NoNorm()
