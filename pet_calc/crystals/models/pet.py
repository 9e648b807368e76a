"""PET as a backbone: the features that its energy would be read from.

With attention that sees angles (`pet_calc.models.pet.layers.AngularAttention`), as by default, they
are exactly the same for a rotated or mirrored crystal; with layerwise ECSE
(`pet_calc.models.pet.tokens`) they are so at the cost of one evaluation for each local frame.
Without either they are as symmetric as training made them, and a prediction depends on how the
crystal is turned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.geometry import Edges, System
from pet_calc.models.pet import PET, PETConfig


@dataclass(frozen=True)
class PETBackboneConfig:
    """Options of `PETBackbone`; those of `PETConfig` that matter most.

    Attributes
    ----------
    width : int
        Of tokens and readout; node features are twice as wide.
    heads, layers : int
        Attention heads, message-passing layers.
    cutoff, cutoff_width : float
        In Å.
    angular_degree : int
        The attention sees angles, by harmonics up to this degree, and the tokens know distances
        alone; 0 for tokens that know vectors.
    ecse : {"none", "layerwise"}
        Local frames, for tokens that know vectors.
    """

    width: int = 64
    heads: int = 4
    layers: int = 2
    cutoff: float = 5.0
    cutoff_width: float = 2.5
    angular_degree: int = 4
    ecse: Literal["none", "layerwise"] = "none"


class PETBackbone(nn.Module):
    """The backbone; see the module."""

    activates_pooled = False
    activation = staticmethod(functional.silu)

    def __init__(self, config: PETBackboneConfig, n_species: int) -> None:
        super().__init__()
        self.config = config
        self.graph_config = GraphConfig(0, cutoff=config.cutoff, merge=False)
        self.network = PET(
            PETConfig(
                elements=tuple(range(1, n_species + 1)),
                cutoff=config.cutoff,
                cutoff_width=config.cutoff_width,
                d_pet=config.width,
                d_node=2 * config.width,
                d_head=config.width,
                d_feedforward=2 * config.width,
                num_heads=config.heads,
                num_attention_layers=1,
                num_gnn_layers=config.layers,
                input_encoding="distance" if config.angular_degree else "radial",
                angular_degree=config.angular_degree,
                ecse=config.ecse,
            )
        )
        # of the atom, and of its neighbors
        self.width = 2 * config.width * self.network.config.num_readout_layers

    def features(self, species: Tensor, graph: CrystalGraph) -> Tensor:
        """Features (n_nodes, width); see `Backbone.features`."""
        if graph.vectors is None:
            raise ValueError("PET needs a graph with vectors, one that is not merged")
        edges = Edges(
            graph.edge_index,
            torch.zeros(len(graph.distances), 3, dtype=torch.int64),
            reverse_edges(graph.edge_index, graph.vectors),
        )
        # the network's elements are counted from 1, and it depends on vectors, not on positions
        positions = torch.full((len(species), 3), torch.nan, dtype=torch.float64)
        system = System.single(positions, species + 1)
        found = self.network.features(system, edges, graph.vectors)
        return self.network.last_layer_features(found)


def reverse_edges(edge_index: Tensor, vectors: Tensor) -> Tensor:
    """Index of the edge from the neighbor back to the center, (n_edges,), int64.

    Parameters
    ----------
    edge_index : Tensor, shape (2, n_edges)
    vectors : Tensor, shape (n_edges, 3)
        Those of an edge and of its reverse are the same but for the sign, to the last bit.
    """
    i, j = edge_index.numpy()
    x, y, z = vectors.detach().numpy().T
    # in both orders the k-th place has the same two atoms and vector, seen from either end
    own, partner = np.lexsort((z, y, x, j, i)), np.lexsort((-z, -y, -x, i, j))
    reverse = np.empty_like(own)
    reverse[own] = partner
    return torch.from_numpy(reverse)
