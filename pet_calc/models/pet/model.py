"""PET: a transformer on edge tokens [Pozdnyakov & Ceriotti, NeurIPS 2023, arXiv:2305.19302].

Every atom owns one node token and one token per neighbor. In each message-passing layer a small
transformer mixes the tokens of an atom; the output token of the edge (i, j) then becomes part of
the message of the reverse edge (j, i). The energy is the sum of readouts of nodes and of edges,
the latter weighted by the cutoff function. `PETConfig` chooses between the variants that have been
published; its defaults are metatrain's (feed-forward featurizer, PreLN, RMSNorm, GLU, bump cutoff).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from pet_calc.errors import UnsupportedElementError
from pet_calc.geometry import (
    Edges,
    NodeEdgeLayout,
    gaussians,
    node_edge_layout,
    spherical_harmonics,
)
from pet_calc.geometry.graph import BUCKET_COST
from pet_calc.kernels.edge_embedding import (
    Encoding,
    edge_embedding,
    edge_geometry,
    fused_embedding,
)
from pet_calc.kernels.gathers import concatenate, edges_to_slots, reverse_edges
from pet_calc.models.cutoff import bump, cosine
from pet_calc.models.ecse.orientations import Orientations
from pet_calc.models.pet.activation import SiLU
from pet_calc.models.pet.adaptive_cutoff import Environment, adaptive_environment
from pet_calc.models.pet.conditioning import Conditions, SystemConditioning
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.pet.normalization import LayerNorm
from pet_calc.models.pet.readout import Readout, mlp_head, pairs
from pet_calc.models.pet.repulsion import ShortRangeRepulsion
from pet_calc.models.pet.tokens import FramedTokens, Tokens, bucket_views, views_of_atoms
from pet_calc.models.pet.zbl import ZBL
from pet_calc.models.recomputation import by_rows

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
    variant_reference_energies : Tensor, shape (n_heads - 1, n_species), float64
        Reference energies of the energy heads after the first.
    variant_scales : Tensor, shape (n_heads - 1,), float64
        Their factors.
    direct_force_scale : Tensor, shape (n_species,), float64
        Factor on the direct forces, by element.
    direct_stress_scale : Tensor, scalar, float64
        Factor on the direct stress.
    """

    reference_energies: Tensor
    energy_scale: Tensor
    species_of_number: Tensor
    gaussian_centers: Tensor
    variant_reference_energies: Tensor
    variant_scales: Tensor
    direct_force_scale: Tensor
    direct_stress_scale: Tensor

    def __init__(self, config: PETConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        d, n_species = config.d_pet, len(config.elements)
        geometry_width = config.geometry_width
        self.edge_embedder = nn.Embedding(n_species, d)
        self.node_embedders = nn.ModuleList(
            nn.Embedding(n_species, config.d_node) for _ in range(config.num_readout_layers)
        )
        self.gnn_layers = nn.ModuleList(
            MessageLayer(config, index=g, geometry_width=geometry_width)
            for g in range(config.num_gnn_layers)
        )
        combinations = config.num_gnn_layers if config.featurizer_type == "feedforward" else 0
        self.combination_norms = nn.ModuleList(LayerNorm(2 * d) for _ in range(combinations))
        self.combination_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * d, 2 * d), SiLU(), nn.Linear(2 * d, d))
            for _ in range(combinations)
        )
        self.node_head = mlp_head(config.d_node, config.d_head, 1)
        self.edge_head = mlp_head(d, config.d_head, 1)
        self.layer_heads = nn.ModuleList(
            Readout(config, 1) for _ in range(config.num_readout_layers - 1)
        )
        self.heads = nn.ModuleDict({
            name: nn.ModuleList(Readout(config, width) for _ in range(config.num_readout_layers))
            for name, width in further_heads(config).items()
        })  # fmt: skip
        self.conditioning = SystemConditioning(config) if config.system_conditioning else None
        self.to(dtype)
        # after the cast: its distances stay in float64
        self.repulsion = ShortRangeRepulsion(n_species) if config.short_range_repulsion else None

        self.zbl = ZBL(config.elements) if config.zbl else None

        species = torch.full((119,), -1, dtype=torch.int64)
        species[list(config.elements)] = torch.arange(n_species)
        self.register_buffer("species_of_number", species, persistent=False)
        centers = torch.linspace(0.0, config.cutoff, config.num_radial, dtype=torch.float64)
        self.register_buffer("gaussian_centers", centers.to(dtype), persistent=False)
        self.register_buffer("reference_energies", torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        variants = len(config.energy_heads) - 1
        if variants:
            shape = (variants, n_species)
            self.register_buffer(
                "variant_reference_energies", torch.zeros(shape, dtype=torch.float64)
            )
            self.register_buffer("variant_scales", torch.ones(variants, dtype=torch.float64))
        if config.direct_forces:
            self.register_buffer("direct_force_scale", torch.ones(n_species, dtype=torch.float64))
        if config.direct_stress:
            self.register_buffer("direct_stress_scale", torch.ones((), dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        if not self.config.zbl:
            return self.config.cutoff
        return max(self.config.cutoff, ZBL.cutoff(self.config.elements))

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.config.elements

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.edge_embedder.weight.dtype

    def with_energy_head(self, name: str) -> PET:
        """The same model, with the same weights in memory, read through another energy head.

        Raises
        ------
        ValueError
            If it has no energy head of that name.
        """
        if name not in self.config.energy_heads:
            raise ValueError(
                f"the energy must be read from a head of the model, "
                f"{list(self.config.energy_heads)}, got {name!r}"
            )
        other = copy.copy(self)
        other.config = replace(self.config, energy_head=name)
        return other

    @property
    def energy_head(self) -> str:
        """Name of the head that the energy is read from."""
        return self.config.energy_head or self.config.energy_heads[0]

    @property
    def last_layers(self) -> tuple[nn.Linear, ...]:
        """The last linear maps of the energy head in use, in the last layer that is read out."""
        node, edge = (head[-1] for head in self.readouts(self.energy_head)[-1])
        assert isinstance(node, nn.Linear)
        assert isinstance(edge, nn.Linear)
        return node, edge

    @property
    def direct(self) -> bool:
        """Whether heads predict forces or stress directly."""
        return self.config.direct_forces or self.config.direct_stress

    @property
    def strictly_local(self) -> bool:
        """Whether an atom's energy depends on the vectors to its neighbors alone."""
        config = self.config
        return (
            config.num_gnn_layers == 1
            and config.ecse == "none"
            and config.featurizer_type == "residual"
            and config.num_neighbors_adaptive is None
        )

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`.

        With `system_conditioning` these are the energies of neutral singlets; see
        `pet_calc.models.pet.conditioning.ConditionedPET` for others.
        """
        return self.energies_under(None, numbers, edges, vectors)

    def energies_under(
        self, conditions: Conditions | None, numbers: Tensor, edges: Edges, vectors: Tensor,
        draw: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Per-atom energies as `energies`, for given conditions or drawn frames; see `features`."""
        species = self.species(numbers)
        features = self.features(species, edges, vectors, conditions, draw)
        return self.read_out(species, features) + self.pair_energies(species, edges, vectors)

    def pair_energies(self, species: Tensor, edges: Edges, vectors: Tensor) -> Tensor | float:
        """Repulsion that is added to the network, per atom in eV, float64; 0 if there is none."""
        if self.repulsion is None and self.zbl is None:
            return 0.0
        distances = vectors.double().square().sum(-1).sqrt()
        terms = [m(species, edges, distances) for m in (self.repulsion, self.zbl) if m is not None]
        return sum(terms[1:], start=terms[0])

    def read_out(self, species: Tensor, features: TokenFeatures) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64, from the features."""
        references, scale = self.head_constants()
        network = self.predict(self.energy_head, features)[:, 0]
        return references[species] + scale * network.double()

    def head_constants(self) -> tuple[Tensor, Tensor]:
        """Reference energies (n_species,) and scale of the energy head in use, as views."""
        variant = self.config.energy_heads.index(self.energy_head) - 1
        if variant < 0:
            return self.reference_energies, self.energy_scale
        return self.variant_reference_energies[variant], self.variant_scales[variant]

    def predict(self, name: str, features: TokenFeatures) -> Tensor:
        """What one head of the network says of each atom, (n_atoms, n_components).

        Parameters
        ----------
        name : str
            An energy head, "direct_forces" or "direct_stress".
        features : TokenFeatures
        """
        total: Tensor | None = None
        for (node, edge), (node_head, edge_head) in zip(
            features.layers, self.readouts(name), strict=True
        ):
            trained = edge_head.parameters()
            found = by_rows(edge_head, edge, rows=features.rows, parameters=trained)
            term = features.per_atom(node_head(node), found)
            total = term if total is None else total + term
        assert total is not None
        return total

    def last_layer_features(
        self, features: TokenFeatures, edges: list[Tensor] | None = None
    ) -> Tensor:
        """What the last linear maps of the energy head act on, (n_atoms, n_features).

        For each layer that is read out: hidden features of the node, then those of the edges,
        summed with their cutoff weights; `edges` are the `last_edge_features`, if known.
        """
        parts = []
        heads = self.readouts(self.energy_head)
        edges = edges or self.last_edge_features(features)
        for (node, _), (node_head, _), edge in zip(features.layers, heads, edges, strict=True):
            hidden = node_head[:-1](node)
            parts.append(torch.zeros_like(hidden).index_copy(0, features.layout.atom_order, hidden))
            parts.append(features.per_atom(torch.zeros_like(hidden), edge))
        return torch.cat(parts, dim=1)

    def last_edge_features(self, features: TokenFeatures) -> list[Tensor]:
        """What the last linear map of the energy head acts on at each edge, without its weight.

        One tensor (n_slots, n_features) for each layer that is read out.
        """
        return [
            by_rows(head[:-1], edge, rows=features.rows, parameters=head.parameters())
            for (_, edge), (_, head) in zip(
                features.layers, self.readouts(self.energy_head), strict=True
            )
        ]

    def readouts(self, name: str) -> list[tuple[nn.Sequential, nn.Sequential]]:
        """Node and edge readout of each layer that is read out, for one head."""
        if name == self.config.energy_heads[0]:
            return [*pairs(self.layer_heads), (self.node_head, self.edge_head)]
        if name not in self.heads:
            raise ValueError(
                f"`name` must be a head of the model "
                f"({[*self.config.energy_heads[:1], *self.heads]}), got {name!r}"
            )
        layers = self.heads[name]
        assert isinstance(layers, nn.ModuleList)
        return pairs(layers)

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

    def features(
        self, species: Tensor, edges: Edges, vectors: Tensor,
        conditions: Conditions | None = None, draw: Tensor | None = None,
    ) -> TokenFeatures:  # fmt: skip
        """Run all message-passing layers.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
            From `species`.
        edges : Edges
        vectors : Tensor, shape (n_edges, 3)
            In Å, in the model's dtype.
        conditions : Conditions, optional
            Charge and spin multiplicity of each atom's system.
        draw : Tensor, optional, shape (n_atoms,)
            With ECSE: uniform numbers in [0, 1) that choose one frame of each atom instead of all.
        """
        seen = self.environment(edges, vectors, len(species))
        return self.features_within(species, seen, conditions, draw)

    def features_within(
        self, species: Tensor, seen: Environment, conditions: Conditions | None = None,
        draw: Tensor | None = None,
    ) -> TokenFeatures:  # fmt: skip
        """As `features`, of the edges that `environment` found."""
        condition: Tensor | None = None
        if self.conditioning is not None:
            condition = self.conditioning(conditions, len(species))
        return self.passed(species, self.tokens(species, seen, draw), condition)

    def passed(self, species: Tensor, tokens: Tokens, condition: Tensor | None) -> TokenFeatures:
        """Tokens through all message-passing layers.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
        tokens : Tokens
        condition : Tensor or None, shape (n_atoms, d_node)
            What charge and spin add to the node features after each layer.
        """
        layout, neighbor = tokens.layout, tokens.neighbor
        ordered_species = species[layout.atom_order]
        node = self.node_embedders[0](ordered_species)
        message: Tensor = self.edge_embedder.weight
        if condition is not None:
            condition = condition[layout.atom_order]
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
        return TokenFeatures(layout, node, message, tokens.slot_weight, tuple(earlier), tokens.rows)

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


def further_heads(config: PETConfig) -> dict[str, int]:
    """Name and number of components of the heads beside the main energy."""
    heads = dict.fromkeys(config.energy_heads[1:], 1)
    if config.direct_forces:
        heads["direct_forces"] = 3
    if config.direct_stress:
        heads["direct_stress"] = 9
    return heads


def kept_elements(device: torch.device) -> int:
    """Elements of a tensor (slots x d_pet) above which activations are recomputed on a device.

    On a GPU half of its memory may be kept.
    """
    if device.type != "cuda":
        return KEPT
    return torch.cuda.get_device_properties(device).total_memory // (2 * BYTES_KEPT)
