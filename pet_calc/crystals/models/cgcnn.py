r"""CGCNN: crystal graph convolutional network [Xie and Grossman, PRL 120, 145301 (2018)].

.. math:: v_i \leftarrow \mathrm{softplus}\Bigl(v_i + \mathrm{BN}\sum_{j} \sigma(f_{ij}) \odot
          \mathrm{softplus}(s_{ij})\Bigr), \qquad
          (f_{ij}, s_{ij}) = \mathrm{BN}(W [v_i, v_j, u_{ij}] + b)

with u the Gaussians exp(-(d - μ)² / 0.2²), μ = 0, 0.2 ... 8 Å. Elements enter through a learned
vector each; the published model learns a linear map of 92 tabulated features of the element, which
is the same once it is evaluated for every element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.models.backbone import WeightedBatchNorm
from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.geometry import gaussians


@dataclass(frozen=True)
class CGCNNConfig:
    """Options of `CGCNN`.

    Attributes
    ----------
    width : int
        Of the features of an atom.
    layers : int
    neighbors : int
        Nearest neighbors of each atom; ties are kept.
    published : bool
        The original's lists: within 8 Å, cut at the number of neighbors, filled up if short.
    """

    width: int = 64
    layers: int = 4
    neighbors: int = 12
    published: bool = False


class Convolution(nn.Module):
    """One layer; see the module."""

    def __init__(self, width: int, n_basis: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width + n_basis, 2 * width)
        self.norm_edge = WeightedBatchNorm(2 * width)
        self.norm_node = WeightedBatchNorm(width)
        self.width = width

    def forward(self, x: Tensor, basis: Tensor, graph: CrystalGraph, weight: Tensor) -> Tensor:
        """Features (n_nodes, width); `weight` (n_edges,) counts the edges."""
        d = self.width
        w = self.linear.weight
        i, j = graph.edge_index
        # W [v_i, v_j, u] with the maps of atoms done once per atom
        z = functional.linear(basis, w[:, 2 * d :], self.linear.bias)
        z = (
            z
            + functional.linear(x, w[:, :d]).index_select(0, i)
            + functional.linear(x, w[:, d : 2 * d]).index_select(0, j)
        )
        gate, core = self.norm_edge(z, weight).chunk(2, dim=1)
        message = graph.gather(torch.sigmoid(gate) * functional.softplus(core))
        return functional.softplus(x + self.norm_node(message, graph.multiplicity))


class CGCNN(nn.Module):
    """The backbone; see the module."""

    activates_pooled = True
    activation = staticmethod(functional.softplus)

    def __init__(self, config: CGCNNConfig, n_species: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.graph_config = (
            GraphConfig(config.neighbors, keep_ties=False, cutoff=8.0, pad=9.0, merge=False)
            if config.published
            else GraphConfig(config.neighbors)
        )
        centers = torch.arange(41, dtype=torch.float64) * 0.2
        self.register_buffer("centers", centers, persistent=False)
        self.embedding = nn.Embedding(n_species, config.width)
        self.layers = nn.ModuleList(Convolution(config.width, 41) for _ in range(config.layers))

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); see `Backbone.features`."""
        x = self.embedding(species)
        assert isinstance(self.centers, Tensor)
        basis = gaussians(graph.distances, self.centers, 1 / 0.2**2)
        weight = graph.edge_weight
        for layer in self.layers:
            x = layer(x, basis, graph, weight)
        return x
