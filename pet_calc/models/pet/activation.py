"""The activation between the linear maps of PET."""

from __future__ import annotations

from torch import Tensor, nn

from pet_calc.kernels.activations import sigmoid_linear_unit


class SiLU(nn.Module):
    """x σ(x), as ``torch.nn.SiLU``, with the second derivative written out."""

    def forward(self, x: Tensor) -> Tensor:
        """Of every number alone."""
        return sigmoid_linear_unit(x)
