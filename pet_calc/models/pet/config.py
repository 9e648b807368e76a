"""Hyper-parameters of PET."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

InputEncoding = Literal["cartesian", "radial"]


@dataclass(frozen=True)
class PETConfig:
    """Architecture of a PET potential; defaults are those of metatrain's PET (format 16).

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers covered, ascending.
    cutoff : float
        Radius of an atom's environment in Å.
    cutoff_width : float
        Width in Å over which an edge's weight falls from 1 to 0.
    d_pet, d_node, d_head, d_feedforward : int
        Widths of edge tokens, node features, readout heads and feed-forward layers.
    num_heads, num_attention_layers, num_gnn_layers : int
        Attention heads, attention layers in each message-passing layer, and the number of those.
    attention_temperature : float
        Divides the attention logits.
    input_encoding : {"cartesian", "radial"}
        Geometry of an edge as the network sees it: (r_ij, |r_ij|) as published, or with the unit
        vector and `num_radial` Gaussians of |r_ij| beside it, which learn much faster.
    num_radial : int
        Number of Gaussians of the radial encoding.
    short_range_repulsion : bool
        Add a pair repulsion below the shortest distance that each pair of elements has in the
        training data (`pet_calc.models.pet.repulsion`).
    """

    elements: tuple[int, ...]
    cutoff: float = 4.5
    cutoff_width: float = 0.5
    d_pet: int = 128
    d_node: int = 256
    d_head: int = 128
    d_feedforward: int = 256
    num_heads: int = 8
    num_attention_layers: int = 2
    num_gnn_layers: int = 2
    attention_temperature: float = 1.0
    input_encoding: InputEncoding = "cartesian"
    num_radial: int = 48
    short_range_repulsion: bool = False

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
        counts = (
            "d_pet", "d_node", "d_head", "d_feedforward", "num_heads", "num_attention_layers",
            "num_gnn_layers", "num_radial",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.d_pet % self.num_heads:
            raise ValueError(
                f"`d_pet` must be a multiple of `num_heads`, got {self.d_pet} and {self.num_heads}"
            )
        if self.input_encoding not in ("cartesian", "radial"):
            raise ValueError(
                f"`input_encoding` must be 'cartesian' or 'radial', got {self.input_encoding!r}"
            )
        if self.attention_temperature <= 0:
            raise ValueError(
                f"`attention_temperature` must be positive, got {self.attention_temperature}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML."""
        return asdict(self) | {"elements": list(self.elements)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PETConfig:
        """Config from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown PET option(s) {unknown}; known are {sorted(known)}")
        return cls(**values)
