"""What every backbone offers, and the parts that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig


@dataclass(frozen=True, eq=False)
class Encoding:
    """Features of crystals.

    Attributes
    ----------
    atoms : Tensor, shape (n_atoms, width)
        In the order of the atoms.
    pooled : Tensor, shape (n_systems, width)
        Their means over each crystal.
    """

    atoms: Tensor
    pooled: Tensor


class Backbone(Protocol):
    """A network from graphs to features.

    Attributes
    ----------
    width : int
        Of the features.
    graph_config : GraphConfig
        The graphs that it reads.
    activates_pooled : bool
        Whether the activation of the readout acts on the pooled features as well.
    activation : callable
        Of the readout.
    """

    width: int
    graph_config: GraphConfig
    activates_pooled: bool
    activation: Any

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); `species` (n_nodes,) are indices of elements."""
        ...


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalization over samples of which each counts for several."""

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalized x (n, width); `weight` (n,) says how many samples each row stands for."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return torch.addcmul(self.bias - self.running_mean * scale, x, scale)
        w = torch.ones_like(x[:, 0]) if weight is None else weight.to(x.dtype)
        total = w.sum()
        w = w / total
        mean = w @ x
        centered = x - mean
        variance = w @ centered.square()
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            rate = self.momentum or 1.0 / float(self.num_batches_tracked)
            unbiased = variance * total / (total - 1).clamp_min(1.0)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(unbiased, rate)
        return torch.addcmul(self.bias, centered, self.weight * torch.rsqrt(variance + self.eps))
