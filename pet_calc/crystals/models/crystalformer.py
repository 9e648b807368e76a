"""Crystalformer as a backbone: attention to all images within a cutoff, which leave it smoothly.

See `pet_calc.models.crystalformer`, which has the published form as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.geometry import Edges
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.crystalformer.images import smooth_images


@dataclass(frozen=True)
class CrystalformerBackboneConfig:
    """Options of `CrystalformerBackbone`.

    Attributes
    ----------
    width : int
    heads : int
    layers : int
    cutoff : float
        In Å.
    """

    width: int = 128
    heads: int = 8
    layers: int = 4
    cutoff: float = 6.0


class CrystalformerBackbone(nn.Module):
    """The backbone; see the module."""

    activates_pooled = False
    activation = staticmethod(functional.silu)

    def __init__(self, config: CrystalformerBackboneConfig, n_species: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.graph_config = GraphConfig(0, cutoff=config.cutoff, merge=False)
        self.network = Crystalformer(
            CrystalformerConfig(
                elements=tuple(range(1, n_species + 1)),
                d_model=config.width,
                num_heads=config.heads,
                num_layers=config.layers,
                cutoff=config.cutoff,
            )
        )

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); see `Backbone.features`."""
        if graph.vectors is None:
            raise ValueError("Crystalformer needs a graph with vectors, one that is not merged")
        config = self.network.config
        edges = Edges(
            graph.edge_index,
            torch.zeros(len(graph.distances), 3, dtype=torch.int64),
            torch.zeros(len(graph.distances), dtype=torch.int64),
        )
        images = smooth_images(
            edges, graph.vectors, len(species), config.cutoff, config.cutoff_width
        )
        return self.network.features(species, images, [])
