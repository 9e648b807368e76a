"""The first public PET [Pozdnyakov & Ceriotti, NeurIPS 2023, arXiv:2305.19302].

It differs from `pet_calc.models.pet.PET` in the details that its published weights need: node and
edge tokens are treated alike by every layer, PreLN ends with one more normalization, attention
weights are multiplied by the cutoff function after the softmax, and the species of a neighbor
enters later layers only if asked for. With `geometry="length"` an edge is seen through its length
alone and the energy is invariant under rotations: the auxiliary form of the ECSE protocol.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.geometry import Edges, System, node_edge_layout
from pet_calc.kernels.cutoff_functions import cosine
from pet_calc.kernels.gathers import edges_to_slots, reverse_edges
from pet_calc.models.pet.readout import mlp_head
from pet_calc.models.species import species_of, species_table

# under the roots of the length that is cut off and of the length that is a feature, Å²
_TINY_CUTOFF, _TINY_FEATURE = 1e-16, 1e-15
_TINY_SUM = 1e-15

# what each option that is a name may be; width of the geometry that an edge shows
_TYPES: Final = ("PostLN", "PreLN")
_GEOMETRIES: Final = {"vector and length": 4, "vector": 3, "length": 1}


@dataclass(frozen=True)
class OriginalPETConfig:
    """Architecture of the first public PET; defaults are the published ones.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers covered, ascending.
    cutoff, cutoff_width : float
        R_CUT and CUTOFF_DELTA in Å; the weight of an edge is a cosine step.
    d_model, d_feedforward, d_head : int
        Widths of tokens, feed-forward layers and heads.
    num_heads, num_attention_layers, num_gnn_layers : int
        Attention heads, attention layers in each message-passing layer, and the number of those.
    transformer_type : {"PostLN", "PreLN"}
        Where tokens are normalized.
    geometry : {"vector and length", "vector", "length"}
        How an edge is seen.
    embedding_activation : bool
        SiLU after the linear map of the geometry.
    blend_neighbor_species : bool
        Later layers see the species of the neighbor again.
    bond_energies : bool
        Read energies out of edge tokens too.
    residual_factor : float
        Factor on the sum of a message and that of the reverse edge.
    """

    elements: tuple[int, ...]
    cutoff: float = 5.0
    cutoff_width: float = 0.2
    d_model: int = 128
    d_feedforward: int = 512
    d_head: int = 128
    num_heads: int = 4
    num_attention_layers: int = 3
    num_gnn_layers: int = 3
    transformer_type: Literal["PostLN", "PreLN"] = "PostLN"
    geometry: Literal["vector and length", "vector", "length"] = "vector and length"
    embedding_activation: bool = False
    blend_neighbor_species: bool = False
    bond_energies: bool = True
    residual_factor: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"`elements` must be ascending and unique, got {self.elements}")
        if not 0 < self.elements[0] <= self.elements[-1] <= 118:
            raise ValueError(f"`elements` must be atomic numbers 1..118, got {self.elements}")
        if not 0 < self.cutoff_width <= self.cutoff:
            raise ValueError(
                f"`cutoff_width` must lie in (0, cutoff], got {self.cutoff_width} with a cutoff "
                f"of {self.cutoff} Å"
            )
        for name in (
            "d_model", "d_feedforward", "d_head", "num_heads", "num_attention_layers",
            "num_gnn_layers",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.num_heads:
            raise ValueError(
                f"`d_model` must be a multiple of `num_heads`, got {self.d_model} and "
                f"{self.num_heads}"
            )
        for name, allowed in (("transformer_type", _TYPES), ("geometry", tuple(_GEOMETRIES))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be {' or '.join(map(repr, allowed))}, "
                    f"got {getattr(self, name)!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"elements": list(self.elements)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OriginalPETConfig:
        """Config from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown option(s) {unknown} of PET; known are {sorted(known)}")
        return cls(**values)


class _Layer(nn.Module):
    def __init__(self, config: OriginalPETConfig) -> None:
        super().__init__()
        d = config.d_model
        self.heads = config.num_heads
        self.pre = config.transformer_type == "PreLN"
        self.input_linear = nn.Linear(d, 3 * d)
        self.output_linear = nn.Linear(d, d)
        self.norm_attention = nn.LayerNorm(d)
        self.norm_mlp = nn.LayerNorm(d)
        self.mlp = nn.Sequential(
            nn.Linear(d, config.d_feedforward), nn.SiLU(), nn.Linear(config.d_feedforward, d)
        )

    def attend(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Attention whose probabilities are multiplied by the keys' weights and normalized."""
        n, t, d = tokens.shape
        qkv = self.input_linear(tokens).view(n, t, 3, self.heads, d // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        logits = query @ key.transpose(-1, -2) / math.sqrt(d // self.heads)
        weighted = torch.softmax(logits, dim=-1) * weight[:, None, None, :]
        probability = weighted / (weighted.sum(-1, keepdim=True) + _TINY_SUM)
        return self.output_linear((probability @ value).transpose(1, 2).reshape(n, t, d))

    def forward(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Tokens (n_atoms, n_tokens, d_model) with weights (n_atoms, n_tokens)."""
        if self.pre:
            tokens = tokens + self.attend(self.norm_attention(tokens), weight)
            return tokens + self.mlp(self.norm_mlp(tokens))
        tokens = self.norm_attention(tokens + self.attend(tokens, weight))
        return self.norm_mlp(tokens + self.mlp(tokens))


class _MessageLayer(nn.Module):
    def __init__(self, config: OriginalPETConfig, *, first: bool) -> None:
        super().__init__()
        d, n_species = config.d_model, len(config.elements)
        width = _GEOMETRIES[config.geometry]
        self.geometry_embedder = nn.Linear(width, d)
        blends = config.blend_neighbor_species and not first
        self.compress = nn.Sequential(
            nn.Linear((3 if blends else 2) * d, d), nn.SiLU(), nn.Linear(d, d)
        )
        self.neighbor_embedder = nn.Embedding(n_species, d) if blends else None
        self.central_embedder = nn.Embedding(n_species, d)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_attention_layers))
        self.final_norm = nn.LayerNorm(d) if config.transformer_type == "PreLN" else None
        self.head = mlp_head(d, config.d_head, 1)
        self.bond_head = mlp_head(d, config.d_head, 1) if config.bond_energies else None
        self.activates = config.embedding_activation

    def edge_tokens(self, geometry: Tensor, species: Tensor, message: Tensor) -> Tensor:
        """Tokens (n_slots, d_model) of the edges."""
        embedded = self.geometry_embedder(geometry)
        parts = [functional.silu(embedded) if self.activates else embedded]
        if self.neighbor_embedder is not None:
            parts.append(self.neighbor_embedder(species))
        return self.compress(torch.cat([*parts, message], dim=-1))

    def transform(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Mix the tokens of each atom."""
        for layer in self.layers:
            tokens = layer(tokens, weight)
        return tokens if self.final_norm is None else self.final_norm(tokens)


class OriginalPET(nn.Module):
    """The first public PET as an `EnergyModel`.

    Parameters
    ----------
    config : OriginalPETConfig
    dtype : torch.dtype
        Of weights and computation; energies are summed in float64.

    Attributes
    ----------
    reference_energies : Tensor, shape (n_species,), float64
        Self-contribution of each element in eV.
    """

    reference_energies: Tensor
    species_of_number: Tensor

    def __init__(self, config: OriginalPETConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(len(config.elements), config.d_model)
        self.gnn_layers = nn.ModuleList(
            _MessageLayer(config, first=g == 0) for g in range(config.num_gnn_layers)
        )
        self.to(dtype)
        self.register_buffer("species_of_number", species_table(config.elements), persistent=False)
        references = torch.zeros(len(config.elements), dtype=torch.float64)
        self.register_buffer("reference_energies", references)

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        return self.config.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.config.elements

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.embedding.weight.dtype

    def geometry(self, vectors: Tensor) -> Tensor:
        """What the network sees of each edge, (n_edges, 4, 3 or 1)."""
        if self.config.geometry == "vector":
            return vectors
        length = (vectors.square().sum(-1, keepdim=True) + _TINY_FEATURE).sqrt()
        if self.config.geometry == "length":
            return length
        return torch.cat([vectors, length], dim=1)

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        species = species_of(
            self.species_of_number, system.numbers, self.config.elements, "PET model"
        )
        layout = node_edge_layout(edges, len(species))
        distances = (vectors.square().sum(-1) + _TINY_CUTOFF).sqrt()
        weights = cosine(distances, self.config.cutoff, self.config.cutoff_width)
        where = (layout.slot_edge, layout.edge_slot)
        weight = edges_to_slots(weights, *where)
        geometry = edges_to_slots(self.geometry(vectors), *where)
        neighbor = edges_to_slots(species[edges.edge_index[1]], *where)
        center = species[layout.atom_order]
        message = self.embedding(neighbor)

        total = torch.zeros(len(species), dtype=self.dtype, device=vectors.device)
        for layer in self.gnn_layers:
            assert isinstance(layer, _MessageLayer)
            tokens = layer.edge_tokens(geometry, neighbor, message)
            central = layer.central_embedder(center)
            outs, atoms = [], []
            for bucket in layout.buckets:
                phi = weight[bucket.slots].view(bucket.n_atoms, bucket.width)
                rows = tokens[bucket.slots].view(bucket.n_atoms, bucket.width, tokens.shape[-1])
                mixed = layer.transform(
                    torch.cat([central[bucket.atoms][:, None], rows], dim=1),
                    functional.pad(phi, (1, 0), value=1.0),
                )
                energy = layer.head(mixed[:, 0])[:, 0]
                if layer.bond_head is not None:
                    energy = energy + (phi * layer.bond_head(mixed[:, 1:])[..., 0]).sum(1)
                atoms.append(energy)
                outs.append(mixed[:, 1:].reshape(-1, tokens.shape[-1]))
            total = total + torch.cat(atoms)
            message = self.config.residual_factor * (
                message + reverse_edges(torch.cat(outs), layout.reverse_slot)
            )
        energies = torch.zeros_like(total).index_copy(0, layout.atom_order, total)
        return self.reference_energies[species] + energies.double()
