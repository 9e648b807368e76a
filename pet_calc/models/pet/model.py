"""PET: a transformer on edge tokens [Pozdnyakov & Ceriotti, NeurIPS 2023, arXiv:2305.19302].

The energy is the sum of readouts of nodes and of edges of `PETNetwork`, the latter weighted by the
cutoff function. `PETConfig` chooses between the variants that have been published; its defaults are
metatrain's (feed-forward featurizer, PreLN, RMSNorm, GLU, bump cutoff).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from pet_calc.geometry import Edges, System
from pet_calc.models.pet.conditioning import SystemConditioning
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.network import PETNetwork, TokenFeatures
from pet_calc.models.pet.readout import Readout, mlp_head, pairs
from pet_calc.models.pet.repulsion import ShortRangeRepulsion
from pet_calc.models.pet.zbl import ZBL
from pet_calc.models.recomputation import by_rows


class PET(PETNetwork):
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
        Energy of an atom of each element in eV, added to the network's energy.
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
    variant_reference_energies: Tensor
    variant_scales: Tensor
    direct_force_scale: Tensor
    direct_stress_scale: Tensor

    def __init__(self, config: PETConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config)
        d, n_species = config.d_pet, len(config.elements)
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

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        features = self.features(system, edges, vectors)
        return self.read_out(system, features) + self.pair_energies(
            features.species, edges, vectors
        )

    def pair_energies(self, species: Tensor, edges: Edges, vectors: Tensor) -> Tensor | float:
        """Repulsion that is added to the network, per atom in eV, float64; 0 if there is none."""
        if self.repulsion is None and self.zbl is None:
            return 0.0
        distances = vectors.double().square().sum(-1).sqrt()
        terms = [m(species, edges, distances) for m in (self.repulsion, self.zbl) if m is not None]
        return sum(terms[1:], start=terms[0])

    def read_out(self, system: System, features: TokenFeatures) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64, from the features.

        They come from the energy head in use, or from the one that each system names.
        """
        if system.energy_head is None:
            return self.head_energies(self.energy_head, features)
        head = system.energy_head[system.system_index]
        total = torch.zeros(system.n_atoms, dtype=torch.float64, device=head.device)
        for k in torch.unique(system.energy_head).tolist():
            found = self.head_energies(self.config.energy_heads[k], features)
            total = torch.where(head == k, found, total)
        return total

    def head_energies(self, name: str, features: TokenFeatures) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64, from one energy head."""
        references, scale = self.head_constants(name)
        return references[features.species] + scale * self.predict(name, features)[:, 0].double()

    def head_constants(self, name: str | None = None) -> tuple[Tensor, Tensor]:
        """Reference energies (n_species,) and scale of an energy head, as views.

        By default of the head in use.
        """
        variant = self.config.energy_heads.index(name or self.energy_head) - 1
        if variant < 0:
            return self.reference_energies, self.energy_scale
        return self.variant_reference_energies[variant], self.variant_scales[variant]

    def predict(self, name: str, features: TokenFeatures) -> Tensor:
        """Prediction of one head of the network for each atom, (n_atoms, n_components).

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


def further_heads(config: PETConfig) -> dict[str, int]:
    """Name and number of components of the heads beside the main energy."""
    heads = dict.fromkeys(config.energy_heads[1:], 1)
    if config.direct_forces:
        heads["direct_forces"] = 3
    if config.direct_stress:
        heads["direct_stress"] = 9
    return heads
