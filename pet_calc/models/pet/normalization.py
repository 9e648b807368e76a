"""Normalisations of tokens that precede a linear map, and the absence of one.

Each offers ``then(linear, x)``, which is ``linear(norm(x))``, as `RMSNorm` does.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional


class Normalization(Protocol):
    """Something that normalises tokens on their way into a linear map."""

    def then(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """``linear(norm(x))`` for tokens (..., width)."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation [arXiv:1607.06450], eps = 1e-5."""

    def then(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """``linear(self(x))``."""
        return functional.linear(self(x), linear.weight, linear.bias)


class NoNorm:
    """Tokens as they are."""

    def then(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """``linear(x)``."""
        return functional.linear(x, linear.weight, linear.bias)


NO_NORM = NoNorm()
