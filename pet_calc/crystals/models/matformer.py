r"""Matformer [Yan et al., NeurIPS 2022, arXiv:2209.11807]: gated attention over neighbors.

.. math:: \alpha = \frac{[q_i, q_i, q_i] \odot [k_i, k_j, e_{ij}]}{\sqrt{3 C}}, \qquad
          m = \mathrm{LN}\bigl(W\,(\sigma(\mathrm{LN}(\alpha)) \odot W'[v_i, v_j, e_{ij}])\bigr)

.. math:: h_i \leftarrow \mathrm{SiLU}\Bigl(\mathrm{BN}\bigl(W'' \sum_j m\bigr)\Bigr) + W''' h_i

for each head of width C, with edges to the nearest neighbors, ties kept, and to the images of an
atom along the lattice. Distances enter by 128 Gaussians exp(-γ (d - μ)²) on 0 to 8 Å with the
published γ = 1 / Δμ in 1/Å².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.models.backbone import WeightedBatchNorm
from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.geometry import gaussians

_BASIS = 128
_REACH = 8.0


@dataclass(frozen=True)
class MatformerConfig:
    """Options of `Matformer`.

    Attributes
    ----------
    width : int
        Of the features of an atom, and of each head.
    heads : int
    layers : int
    neighbors : int
        Nearest neighbors of each atom; ties are kept.
    published : bool
        The original's edges: within 8 Å, lattice vectors as given, images of an atom counted twice.
    """

    width: int = 128
    heads: int = 4
    layers: int = 5
    neighbors: int = 12
    published: bool = False


class MatformerConvolution(nn.Module):
    """One layer; see the module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.query = nn.Linear(width, heads * width)
        self.key = nn.Linear(width, heads * width)
        self.value = nn.Linear(width, heads * width)
        self.edge = nn.Linear(width, heads * width, bias=False)
        self.update = nn.Linear(3 * width, 3 * width)
        self.norm_gate = nn.LayerNorm(3 * width)
        self.message = nn.Linear(3 * width, width)
        self.norm_message = nn.LayerNorm(width)
        self.merge = nn.Linear(heads * width, width)
        self.norm = WeightedBatchNorm(width)
        self.skip = nn.Linear(width, width)

    def forward(self, x: Tensor, e: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width) from those and features (n_edges, width) of the edges."""
        i, j = graph.edge_index
        shape = (-1, self.heads, self.width)
        q, k, v = (f(x).view(shape) for f in (self.query, self.key, self.value))
        edge = self.edge(e).view(shape)
        q_i = q.index_select(0, i)
        keys = torch.cat([k.index_select(0, i), k.index_select(0, j), edge], dim=-1)
        alpha = torch.cat([q_i, q_i, q_i], dim=-1) * keys / math.sqrt(3 * self.width)
        values = torch.cat([v.index_select(0, i), v.index_select(0, j), edge], dim=-1)
        gated = torch.sigmoid(self.norm_gate(alpha)) * self.update(values)
        message = self.norm_message(self.message(gated))
        gathered = self.merge(graph.gather(message.flatten(1)))
        return functional.silu(self.norm(gathered, graph.multiplicity)) + self.skip(x)


class Matformer(nn.Module):
    """The backbone; see the module."""

    activates_pooled = False
    activation = staticmethod(functional.silu)

    def __init__(self, config: MatformerConfig, n_species: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        published = config.published
        self.graph_config = GraphConfig(
            config.neighbors,
            symmetric=True,
            cutoff=_REACH if published else None,
            lattice_edges="given" if published else "primitive",
            repeat_images=published,
        )
        centers = torch.linspace(0.0, _REACH, _BASIS, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)
        self.gamma = (_BASIS - 1) / _REACH
        self.embedding = nn.Embedding(n_species, config.width)
        self.radial = nn.Sequential(
            nn.Linear(_BASIS, config.width), nn.Softplus(), nn.Linear(config.width, config.width)
        )
        self.layers = nn.ModuleList(
            MatformerConvolution(config.width, config.heads) for _ in range(config.layers)
        )

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); see `Backbone.features`."""
        x = self.embedding(species)
        assert isinstance(self.centers, Tensor)
        e = self.radial(gaussians(graph.distances, self.centers, self.gamma))
        for layer in self.layers:
            x = layer(x, e, graph)
        return x
