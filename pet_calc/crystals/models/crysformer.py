r"""Crysformer [Wang et al., Chin. Phys. B 32, 090703 (2023)]: attention on atoms and on bonds.

Each block is a layer on the line graph, whose nodes are the bonds and whose edges are the pairs of
bonds at one atom with their angle, and a layer on the graph of atoms and bonds. A layer with nodes
x and edges u attends twice, with softmax over the neighbors j of i,

.. math:: \tilde x_i = \mathrm{LN}\Bigl(x_i + \sum_j a_{ij} W_v u_{ij}\Bigr), \qquad
          a_{ij} = \mathrm{softmax}_j \frac{W_q x_i \cdot W_k u_{ij}}{\sqrt{d}}

.. math:: x_i \leftarrow \mathrm{LN}\Bigl(\tilde x_i + \sum_j c_{ij} W'_v \tilde x_j\Bigr), \qquad
          u_{ij} \leftarrow \mathrm{LN}(u_{ij} + W'_o s_{ij}), \qquad
          c_{ij} = \mathrm{softmax}_j \sum_d s_{ij}

.. math:: s_{ij} = \frac{W'_q \tilde x_i \odot W'_k \tilde x_j \odot W'_e u_{ij}}{\sqrt{d}}

and then has a feed-forward network for each. **The formula of s, the conditional attention, is a
reconstruction** after the text of the paper ("gated", "edges are updated by the importance
factor"), in the form of Dwivedi and Bresson's graph transformer [arXiv:2012.09699]. Angles enter
by their cosines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.geometry import gaussians

_BASIS = 64


@dataclass(frozen=True)
class CrysformerConfig:
    """Options of `Crysformer`; the paper's width, heads and blocks are not known.

    Attributes
    ----------
    width : int
    heads : int
    layers : int
        Blocks.
    neighbors : int
        Nearest neighbors of each atom; ties are kept.
    """

    width: int = 64
    heads: int = 4
    layers: int = 3
    neighbors: int = 12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"`width` must be a multiple of `heads`, got {self.width} and {self.heads}"
            )


def softmax_by_center(logits: Tensor, center: Tensor, n: int) -> Tensor:
    """Softmax of (n_edges, heads) over the edges of each of `n` centers."""
    index = center[:, None].expand_as(logits)
    highest = logits.new_full((n, logits.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
    weights = (logits - highest.index_select(0, center)).exp()
    total = weights.new_zeros(n, logits.shape[1]).index_add(0, center, weights)
    return weights / total.index_select(0, center)


class FeedForward(nn.Module):
    """x + W₂ ReLU(W₁ x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width)."""
        return x + self.outer(functional.relu(self.inner(x)))


class CrysformerLayer(nn.Module):
    """Cross-attention to edges, conditional attention to nodes, feed-forward; see the module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm_cross = nn.LayerNorm(width)
        self.query2, self.key2, self.edge2 = (nn.Linear(width, width) for _ in range(3))
        self.value2, self.output2 = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_node, self.norm_edge = nn.LayerNorm(width), nn.LayerNorm(width)
        self.node_network, self.edge_network = FeedForward(width), FeedForward(width)

    def forward(self, x: Tensor, u: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (n, width) and edges (m, width) from those; `index` (2, m) is center, neighbor."""
        n, width = x.shape
        i, j = index
        scale = math.sqrt(width / self.heads)

        def per_head(y: Tensor) -> Tensor:
            return y.view(len(y), self.heads, -1).sum(-1)

        def weighted(weights: Tensor, values: Tensor) -> Tensor:
            spread = values.view(len(values), self.heads, -1) * weights[:, :, None]
            return x.new_zeros(n, width).index_add(0, i, spread.flatten(1))

        a = per_head(self.query(x).index_select(0, i) * self.key(u)) / scale
        x = self.norm_cross(x + weighted(softmax_by_center(a, i, n), self.value(u)))
        q, k = self.query2(x).index_select(0, i), self.key2(x).index_select(0, j)
        s = q * k * self.edge2(u) / scale
        c = softmax_by_center(per_head(s), i, n)
        x = self.norm_node(x + weighted(c, self.value2(x).index_select(0, j)))
        u = self.norm_edge(u + self.output2(s))
        return self.node_network(x), self.edge_network(u)


def line_graph(graph: CrystalGraph) -> tuple[Tensor, Tensor]:
    """Ordered pairs of bonds at one atom, (2, n_pairs), and the cosines of their angles."""
    if graph.vectors is None:
        raise ValueError("angles need a graph with vectors, one that is not merged")
    counts = torch.bincount(graph.edge_index[0], minlength=len(graph.numbers)).numpy()
    begins = np.cumsum(counts) - counts
    first = np.repeat(np.arange(counts.sum()), np.repeat(counts, counts))
    own = np.repeat(counts, counts)  # bonds at the atom of each bond
    place = np.arange(len(first)) - np.repeat(np.cumsum(own) - own, own)
    second = np.repeat(np.repeat(begins, counts), own) + place
    kept = first != second
    pairs = torch.from_numpy(np.stack([first[kept], second[kept]]).astype(np.int64))
    unit = graph.vectors / graph.distances[:, None]
    cosines = (unit.index_select(0, pairs[0]) * unit.index_select(0, pairs[1])).sum(-1)
    return pairs, cosines


class Crysformer(nn.Module):
    """The backbone; see the module."""

    activates_pooled = False
    activation = staticmethod(functional.silu)

    def __init__(self, config: CrysformerConfig, n_species: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.graph_config = GraphConfig(config.neighbors, merge=False)
        for name, low, high in (("lengths", 0.0, 8.0), ("cosines", -1.0, 1.0)):
            centers = torch.linspace(low, high, _BASIS, dtype=torch.float64)
            self.register_buffer(name, centers, persistent=False)
        self.embedding = nn.Embedding(n_species, config.width)
        self.bond = nn.Linear(_BASIS, config.width)
        self.angle = nn.Linear(_BASIS, config.width)
        layers = [CrysformerLayer(config.width, config.heads) for _ in range(2 * config.layers)]
        self.layers = nn.ModuleList(layers)

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); see `Backbone.features`."""
        pairs, cosines = line_graph(graph)
        assert isinstance(self.lengths, Tensor)
        assert isinstance(self.cosines, Tensor)
        h = self.embedding(species)
        # a Gaussian is as wide as two spacings
        e = self.bond(gaussians(graph.distances, self.lengths, ((_BASIS - 1) / 16.0) ** 2))
        t = self.angle(gaussians(cosines, self.cosines, ((_BASIS - 1) / 4.0) ** 2))
        for k in range(self.config.layers):
            e, t = self.layers[2 * k](e, t, pairs)
            h, e = self.layers[2 * k + 1](h, e, graph.edge_index)
        return h
