"""PET: a transformer on edge tokens [Pozdnyakov & Ceriotti, NeurIPS 2023, arXiv:2305.19302].

Every atom owns one node token and one token per neighbour. In each message-passing layer a small
transformer mixes the tokens of an atom; the output token of the edge (i, j) then becomes part of
the message of the reverse edge (j, i). The energy is the sum of readouts of nodes and of edges,
the latter weighted by the cutoff function. The architecture is the one of metatrain's PET with
feed-forward featurizer, PreLN, RMSNorm, GLU and the bump cutoff.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.errors import UnsupportedElementError
from pet_calc.geometry import Edges, NodeEdgeLayout, node_edge_layout
from pet_calc.kernels.reverse_edges import reverse_edges
from pet_calc.models.cutoff import bump
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.pet.repulsion import ShortRangeRepulsion

# keeps the logarithm finite and the gradient of |r| defined; of no effect within 1e-15
_TINY = 1e-15
# logarithmic weight of padding: exp underflows to exactly zero in float32 and float64
_HIDDEN = -1e9


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """What the message-passing layers leave for the readouts.

    Attributes
    ----------
    layout : NodeEdgeLayout
        Order of atoms and slots.
    node : Tensor, shape (n_atoms, d_node)
        Node features in the sorted order of the layout.
    message : Tensor, shape (n_slots, d_pet)
        Edge features.
    slot_weight : Tensor, shape (n_slots,)
        Cutoff weight of each edge, 0 on padding.
    """

    layout: NodeEdgeLayout
    node: Tensor
    message: Tensor
    slot_weight: Tensor

    def per_atom(self, node: Tensor, edge: Tensor) -> Tensor:
        """Node values plus cutoff-weighted sums of edge values, in the original order of atoms.

        Parameters
        ----------
        node : Tensor, shape (n_atoms, ...)
            In the layout's order.
        edge : Tensor, shape (n_slots, ...)
        """
        tail = edge.shape[1:]
        weighted = edge * self.slot_weight.view(-1, *(1 for _ in tail))
        sums = [
            weighted[b.slots].view(b.n_atoms, b.width, *tail).sum(1) for b in self.layout.buckets
        ]
        total = node + torch.cat(sums)
        return torch.zeros_like(total).index_copy(0, self.layout.atom_order, total)


class PET(nn.Module):
    """The Point Edge Transformer as an `EnergyModel`.

    Parameters
    ----------
    config : PETConfig
        The architecture.
    dtype : torch.dtype
        Floating-point type of weights and computation; energies are summed in float64.

    Attributes
    ----------
    reference_energies : Tensor, shape (n_species,), float64
        Energy of an atom of each element in eV, added to what the network says.
    energy_scale : Tensor, scalar, float64
        Factor on the network's energy.
    """

    reference_energies: Tensor
    energy_scale: Tensor
    species_of_number: Tensor
    gaussian_centers: Tensor

    def __init__(self, config: PETConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        d, n_species = config.d_pet, len(config.elements)
        geometry_width = 4 if config.input_encoding == "cartesian" else 7 + config.num_radial
        self.edge_embedder = nn.Embedding(n_species, d)
        self.node_embedders = nn.ModuleList([nn.Embedding(n_species, config.d_node)])
        self.gnn_layers = nn.ModuleList(
            MessageLayer(config, first=g == 0, geometry_width=geometry_width)
            for g in range(config.num_gnn_layers)
        )
        self.combination_norms = nn.ModuleList(
            nn.LayerNorm(2 * d) for _ in range(config.num_gnn_layers)
        )
        self.combination_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d))
            for _ in range(config.num_gnn_layers)
        )
        self.node_head = readout(config.d_node, config.d_head)
        self.edge_head = readout(d, config.d_head)
        self.to(dtype)
        # after the cast: its distances stay in float64
        self.repulsion = ShortRangeRepulsion(n_species) if config.short_range_repulsion else None

        species = torch.full((119,), -1, dtype=torch.int64)
        species[list(config.elements)] = torch.arange(n_species)
        self.register_buffer("species_of_number", species, persistent=False)
        centers = torch.linspace(0.0, config.cutoff, config.num_radial, dtype=torch.float64)
        self.register_buffer("gaussian_centers", centers.to(dtype), persistent=False)
        self.register_buffer("reference_energies", torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbours matter."""
        return self.config.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.config.elements

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.edge_embedder.weight.dtype

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        species = self.species(numbers)
        energies = self.read_out(species, self.features(species, edges, vectors))
        if self.repulsion is not None:
            distances = vectors.double().square().sum(-1).sqrt()
            energies = energies + self.repulsion(species, edges, distances)
        return energies

    def read_out(self, species: Tensor, features: TokenFeatures) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64, from the features."""
        network = features.per_atom(
            self.node_head(features.node)[:, 0], self.edge_head(features.message)[:, 0]
        )
        return self.reference_energies[species] + self.energy_scale * network.double()

    def species(self, numbers: Tensor) -> Tensor:
        """Index of each atom's element in ``config.elements``."""
        species = self.species_of_number[numbers.clamp(0, 118)]
        if bool((species < 0).any()):
            unknown = sorted(set(numbers[species < 0].tolist()))
            raise UnsupportedElementError(
                f"this PET model covers the atomic numbers {list(self.config.elements)}, but the "
                f"structure contains {unknown}"
            )
        return species

    def geometry(self, vectors: Tensor, distances: Tensor) -> Tensor:
        """What the network sees of each edge: (n_edges, 4), or (n_edges, 7 + num_radial)."""
        r = distances[:, None]
        if self.config.input_encoding == "cartesian":
            return torch.cat([vectors, r], dim=1)
        spacing = self.config.cutoff / self.config.num_radial
        gaussians = torch.exp(-0.5 * ((r - self.gaussian_centers) / spacing).square())
        return torch.cat([vectors, r, vectors / r, gaussians], dim=1)

    def features(self, species: Tensor, edges: Edges, vectors: Tensor) -> TokenFeatures:
        """Run all message-passing layers.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
            From `species`.
        edges : Edges
        vectors : Tensor, shape (n_edges, 3)
            In Å, in the model's dtype.
        """
        layout = node_edge_layout(edges, len(species))
        distances = (vectors.square().sum(-1) + _TINY).sqrt()
        weights = bump(distances, self.config.cutoff, self.config.cutoff_width)
        slot_weight = append_row(weights, 0.0)[layout.slot_edge]
        log_weight = torch.where(
            layout.slot_mask, slot_weight.clamp_min(_TINY).log(), slot_weight.new_tensor(_HIDDEN)
        )
        geometry = append_row(self.geometry(vectors, distances), 0.0)[layout.slot_edge]
        neighbour = append_row(species[edges.edge_index[1]], 0)[layout.slot_edge]
        log_weights = []
        for bucket in layout.buckets:
            rows = log_weight[bucket.slots].view(bucket.n_atoms, bucket.width)
            log_weights.append(functional.pad(rows, (1, 0)))  # the node token has weight 1

        d = self.config.d_pet
        node = self.node_embedders[0](species[layout.atom_order])
        message: Tensor = self.edge_embedder.weight
        for g, layer in enumerate(self.gnn_layers):
            assert isinstance(layer, MessageLayer)
            tokens = layer.embed(geometry, neighbour, message)
            nodes, outs = [], []
            # split, as the backward pass of slices would add full-sized tensors of zeros
            parts = zip(
                layout.buckets,
                node.split([b.n_atoms for b in layout.buckets]),
                tokens.split([b.n_atoms * b.width for b in layout.buckets]),
                log_weights,
                strict=True,
            )
            for bucket, centres, neighbours, bias in parts:
                rows = neighbours.view(bucket.n_atoms, bucket.width, d)
                n, e = layer.trans(centres, rows, bias)
                nodes.append(n)
                outs.append(e.reshape(bucket.n_atoms * bucket.width, d))
            node = torch.cat(nodes)
            out = torch.cat(outs)
            both = torch.cat([out, reverse_edges(out, layout.reverse_slot)], dim=1)
            update = self.combination_mlps[g](self.combination_norms[g](both))
            previous = message[neighbour] if g == 0 else message
            message = previous + out + update
        return TokenFeatures(layout, node, message, slot_weight)


def readout(width: int, hidden: int) -> nn.Sequential:
    """Linear, SiLU, Linear, SiLU, and a last Linear to one energy."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, 1),
    )


def append_row(x: Tensor, value: float) -> Tensor:
    """Tensor (n, ...) with one more row of a constant, which padding slots point at."""
    return torch.cat([x, x.new_full((1, *x.shape[1:]), value)])
