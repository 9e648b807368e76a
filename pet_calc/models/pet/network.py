"""The network of PET: from edges to features of nodes and edges.

Every atom owns one node token and one token per neighbor. In each message-passing layer a small
transformer mixes the tokens of an atom; the output token of the edge (i, j) then becomes part of
the message of the reverse edge (j, i).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from pet_calc.geometry import (
    Edges,
    NodeEdgeLayout,
    System,
    gaussians,
    node_edge_layout,
    spherical_harmonics,
)
from pet_calc.geometry.graph import BUCKET_COST
from pet_calc.kernels.cutoff_functions import bump, cosine
from pet_calc.kernels.edge_embedding import (
    Encoding,
    edge_embedding,
    edge_geometry,
    fused_embedding,
)
from pet_calc.kernels.gathers import concatenate, edges_to_slots, reverse_edges
from pet_calc.models.ecse.orientations import Orientations
from pet_calc.models.pet.activation import SiLU
from pet_calc.models.pet.adaptive_cutoff import Environment, adaptive_environment
from pet_calc.models.pet.conditioning import SystemConditioning
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.pet.normalization import LayerNorm
from pet_calc.models.pet.tokens import FramedTokens, Tokens, bucket_views, views_of_atoms
from pet_calc.models.pet.zbl import ZBL
from pet_calc.models.recomputation import by_rows
from pet_calc.models.species import species_of, species_table

#: Elements of a tensor (slots x d_pet) above which activations are computed a second time in the
#: backward pass instead of being kept: some tens of such tensors, about 5 GB in float32.
KEPT: Final = 2**25
#: Bytes that are kept in all for each of these elements, in float32.
BYTES_KEPT: Final = 400
#: With frames, where the views multiply what would be kept.
KEPT_OF_VIEWS: Final = 2**21
#: Elements of such a tensor in one part, beyond which a longer one is not faster.
PART: Final = 2**21
#: Elements of such a tensor with the views of some atoms, beyond which it leaves the cache.
PART_OF_VIEWS: Final = 2**19

# keeps the gradient of |r| defined; of no effect within 1e-15
_TINY = 1e-15


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """What the message-passing layers leave for the readouts.

    Attributes
    ----------
    layout : NodeEdgeLayout
        Order of atoms and slots.
    species : Tensor, shape (n_atoms,)
        Index of each atom's element, in the original order of atoms.
    node : Tensor, shape (n_atoms, d_node)
        Node features in the sorted order of the layout.
    message : Tensor, shape (n_slots, d_pet)
        Edge features.
    slot_weight : Tensor, shape (n_slots,)
        Cutoff weight of each edge, 0 on padding.
    earlier : tuple of (Tensor, Tensor)
        Node and edge features of the layers before the last, where those are read out too.
    rows : int or None
        Slots that are read out at a time, if activations are recomputed.
    """

    layout: NodeEdgeLayout
    species: Tensor
    node: Tensor
    message: Tensor
    slot_weight: Tensor
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()
    rows: int | None = None

    @property
    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Node and edge features of all layers that are read out."""
        return (*self.earlier, (self.node, self.message))

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


class PETNetwork(nn.Module):
    """Embeddings and message-passing layers of PET.

    Parameters
    ----------
    config : PETConfig
    """

    species_of_number: Tensor
    gaussian_centers: Tensor
    conditioning: SystemConditioning | None

    def __init__(self, config: PETConfig) -> None:
        super().__init__()
        self.config = config
        d, n_species = config.d_pet, len(config.elements)
        self.edge_embedder = nn.Embedding(n_species, d)
        self.node_embedders = nn.ModuleList(
            nn.Embedding(n_species, config.d_node) for _ in range(config.num_readout_layers)
        )
        self.gnn_layers = nn.ModuleList(
            MessageLayer(config, index=g, geometry_width=config.geometry_width)
            for g in range(config.num_gnn_layers)
        )
        combinations = config.num_gnn_layers if config.featurizer_type == "feedforward" else 0
        self.combination_norms = nn.ModuleList(LayerNorm(2 * d) for _ in range(combinations))
        self.combination_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * d, 2 * d), SiLU(), nn.Linear(2 * d, d))
            for _ in range(combinations)
        )
        self.register_buffer("species_of_number", species_table(config.elements), persistent=False)

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        if not self.config.zbl:
            return self.config.cutoff
        return max(self.config.cutoff, ZBL.cutoff(self.config.elements))

    def species(self, numbers: Tensor) -> Tensor:
        """Index of each atom's element in ``config.elements``."""
        return species_of(self.species_of_number, numbers, self.config.elements, "PET model")

    def features(
        self,
        system: System,
        edges: Edges,
        vectors: Tensor,
        environment: Environment | None = None,
    ) -> TokenFeatures:
        """Run all message-passing layers.

        Parameters
        ----------
        system : System
        edges : Edges
        vectors : Tensor, shape (n_edges, 3)
            In Å, in the model's dtype.
        environment : Environment, optional
            From `environment` with these edges, where it is there already.
        """
        environment = environment or self.environment(edges, vectors, system.n_atoms)
        species = self.species(system.numbers)
        if system.frame_draw is not None and self.config.ecse != "layerwise":
            raise ValueError("`frame_draw` needs layerwise ECSE; a plain PET has no frames to draw")
        if self.conditioning is not None and system.device.type == "cpu":
            # on a GPU, where this would wait for the device, it is left to the caller
            self.conditioning.require(system)
        tokens = self.tokens(species, environment, system.frame_draw)
        return self.passed(system, species, tokens)

    def passed(self, system: System, species: Tensor, tokens: Tokens) -> TokenFeatures:
        """Tokens through all message-passing layers.

        Parameters
        ----------
        system : System
            With charge and spin, for models that depend on them.
        species : Tensor, shape (n_atoms,)
        tokens : Tokens
        """
        layout, neighbor = tokens.layout, tokens.neighbor
        ordered_species = species[layout.atom_order]
        node = self.node_embedders[0](ordered_species)
        message: Tensor = self.edge_embedder.weight
        condition: Tensor | None = None
        if self.conditioning is not None:
            condition = self.conditioning(system)[layout.atom_order]
        residual = self.config.featurizer_type == "residual"
        earlier: list[tuple[Tensor, Tensor]] = []
        for g, layer in enumerate(self.gnn_layers):
            assert isinstance(layer, MessageLayer)
            if residual and g > 0:
                node = self.node_embedders[g](ordered_species)
            node, out = tokens.through(layer, node, message)
            if condition is not None:
                node = node + condition
            previous = message[neighbor] if g == 0 else message
            if residual:
                earlier.append((node, out))
                message = 0.5 * (previous + reverse_edges(out, layout.reverse_slot))
                continue
            back = reverse_edges(out, layout.reverse_slot)
            mixing = [*self.combination_mlps[g].parameters()]
            mixing += self.combination_norms[g].parameters()
            update = by_rows(
                partial(self.combined, g), out, back, rows=tokens.rows, parameters=mixing
            )
            message = previous + out + update
        if residual:
            node, message = earlier.pop()
        return TokenFeatures(
            layout, species, node, message, tokens.slot_weight, tuple(earlier), tokens.rows
        )

    def combined(self, layer: int, out: Tensor, back: Tensor) -> Tensor:
        """What an edge (n, d_pet) and its reverse edge tell each other after a layer."""
        norm, mlp = self.combination_norms[layer], self.combination_mlps[layer]
        assert isinstance(norm, LayerNorm)
        assert isinstance(mlp, nn.Sequential)
        first, activation, last = mlp
        assert isinstance(first, nn.Linear)
        hidden = norm.then(first, concatenate(out, back, dim=1))
        update: Tensor = last(activation(hidden))
        return update

    def geometry(self, vectors: Tensor, distances: Tensor) -> Tensor:
        """What the network sees of each edge, (n_edges, ``config.geometry_width``)."""
        if self.config.input_encoding == "distance":
            radial = gaussians(distances, self.gaussian_centers, 0.5 / self.encoding.spacing**2)
            return torch.cat([distances[:, None], radial], dim=1)
        return edge_geometry(vectors, distances, self.gaussian_centers, self.encoding)

    @property
    def encoding(self) -> Encoding:
        """Constants of that geometry and of the cutoff weight."""
        config = self.config
        return Encoding(
            radial=config.input_encoding == "radial",
            spacing=config.cutoff / config.num_radial,
            width=config.cutoff_width,
            smooth=config.cutoff_function == "Bump",
        )

    def environment(self, edges: Edges, vectors: Tensor, n_atoms: int) -> Environment:
        """The edges that the network sees, of a list that may reach further.

        Parameters
        ----------
        edges : Edges
        vectors : Tensor, shape (n_edges, 3)
            In Å, in the model's dtype.
        n_atoms : int
        """
        config = self.config
        distances = (vectors.square().sum(-1) + _TINY).sqrt()
        keep: Tensor | None = None
        if self.cutoff > config.cutoff:  # the list reaches further, for the repulsion
            keep = distances <= config.cutoff
            edges, vectors, distances = edges.select(keep), vectors[keep], distances[keep]
        if config.num_neighbors_adaptive is not None:
            found = adaptive_environment(edges, vectors, distances, n_atoms, config)
            if keep is None or found.kept is None:
                return found
            return replace(found, kept=keep.masked_scatter(keep, found.kept))
        radii = distances.new_full((n_atoms,), config.cutoff)
        return Environment(edges, vectors, distances, config.cutoff, radii, keep)

    def tokens(self, species: Tensor, seen: Environment, draw: Tensor | None) -> Tokens:
        """What the layers act on, plain or in local frames."""
        config = self.config
        edges, vectors = seen.edges, seen.vectors
        # a slot costs several times as much where it is seen in local frames
        bucket_cost = BUCKET_COST if config.ecse != "layerwise" else BUCKET_COST // 4
        layout = node_edge_layout(edges, len(species), bucket_cost=bucket_cost)
        found: Orientations | None = None
        cost = layout.widths
        kept, part = kept_elements(vectors.device), PART
        if config.ecse == "layerwise":
            found = views_of_atoms(edges, vectors, len(species), config.cutoff, config.frames, draw)
            cost = cost * found.group.bincount(minlength=len(species))[layout.atom_order]
            # as much at a time as a plain model has in one layer
            kept, part = KEPT_OF_VIEWS, min(PART, max(2**18, len(layout.slot_edge) * config.d_pet))
        rows: int | None = None
        if int(cost.sum()) * config.d_pet > kept:
            rows = max(1, part // config.d_pet)
            layout = layout.split(cost, rows)
        elif found is not None:
            layout = layout.split(cost, max(1, PART_OF_VIEWS // config.d_pet))
        if found is None:
            return self.plain_tokens(species, seen, layout, rows)
        radial = config.input_encoding == "radial"
        columns = (0, 1, 2, 4, 5, 6) if radial else (0, 1, 2)
        views = bucket_views(layout, vectors, found, unit=radial, lean=rows is not None)
        plain = self.plain_tokens(species, seen, layout, rows, hidden=columns)
        return FramedTokens(
            layout, plain.geometry, plain.neighbor, plain.slot_weight, rows, views, columns
        )

    def plain_tokens(
        self, species: Tensor, seen: Environment, layout: NodeEdgeLayout, rows: int | None,
        hidden: tuple[int, ...] = (),
    ) -> Tokens:  # fmt: skip
        """The tokens of a layout, with zeros in the columns of the geometry that are `hidden`."""
        config = self.config
        where = (layout.slot_edge, layout.edge_slot)
        neighbor = edges_to_slots(species[seen.edges.edge_index[1]], *where)
        harmonics = self.harmonics(seen, layout)
        whole = rows is None and not hidden and config.input_encoding != "distance"
        if whole and fused_embedding(seen.vectors, config.geometry_width):
            return self.embedded_tokens(seen, layout, neighbor, harmonics)
        taper = bump if config.cutoff_function == "Bump" else cosine
        weights = taper(seen.distances, seen.cutoff, config.cutoff_width)
        geometry = by_rows(self.geometry, seen.vectors, seen.distances, rows=rows)
        if hidden:
            directional = torch.zeros(geometry.shape[1], dtype=torch.bool, device=geometry.device)
            directional[list(hidden)] = True
            geometry = geometry.masked_fill(directional, 0.0)
        slots = edges_to_slots(geometry, *where)
        weight = edges_to_slots(weights, *where)
        return Tokens(layout, slots, neighbor, weight, rows, harmonics=harmonics)

    def harmonics(self, seen: Environment, layout: NodeEdgeLayout) -> Tensor | None:
        """Harmonics (n_slots, n_harmonics) of the edges' directions, if the attention sees them."""
        degree = self.config.angular_degree
        if degree == 0:
            return None
        unit = seen.vectors / seen.distances[:, None]
        found = spherical_harmonics(unit, degree)
        return edges_to_slots(found, layout.slot_edge, layout.edge_slot)

    def embedded_tokens(
        self, seen: Environment, layout: NodeEdgeLayout, neighbor: Tensor,
        harmonics: Tensor | None = None,
    ) -> Tokens:  # fmt: skip
        """As `plain_tokens`, with the embeddings of all layers from one kernel each."""
        where = (layout.slot_edge, layout.edge_slot)
        vectors = edges_to_slots(seen.vectors, *where)
        if isinstance(seen.cutoff, Tensor):
            cutoff = edges_to_slots(seen.cutoff, *where)
        else:
            cutoff = torch.full_like(vectors[:, 0], seen.cutoff)
        embedded = []
        for layer in self.gnn_layers:
            assert isinstance(layer, MessageLayer)
            table, matrix = layer.table(self.edge_embedder.weight), layer.geometry_matrix().T
            embedded.append(
                edge_embedding(
                    vectors, layout.slot_mask, neighbor, cutoff, self.gaussian_centers, table,
                    matrix, self.encoding,
                )
            )  # fmt: skip
        weight = embedded[0][1]
        hidden = tuple(h for h, _ in embedded)
        return Tokens(
            layout, vectors[:, :0], neighbor, weight, embedded=hidden, harmonics=harmonics
        )


def kept_elements(device: torch.device) -> int:
    """Elements of a tensor (slots x d_pet) above which activations are recomputed on a device.

    On a GPU half of its memory may be kept.
    """
    if device.type != "cuda":
        return KEPT
    return torch.cuda.get_device_properties(device).total_memory // (2 * BYTES_KEPT)
