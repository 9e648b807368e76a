"""Hyper-parameters of PET."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pet_calc.models.ecse.frames import FrameConfig

InputEncoding = Literal["cartesian", "radial", "distance"]

# what each option that is a name may be
_CHOICES: dict[str, tuple[str, ...]] = {
    "input_encoding": ("cartesian", "radial", "distance"),
    "featurizer_type": ("feedforward", "residual"),
    "transformer_type": ("PreLN", "PostLN"),
    "normalization": ("RMSNorm", "LayerNorm"),
    "activation": ("GLU", "SiLU"),
    "cutoff_function": ("Bump", "Cosine"),
    "adaptive_cutoff_method": ("solver", "grid"),
    "ecse": ("none", "layerwise"),
}


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
    input_encoding : {"cartesian", "radial", "distance"}
        Geometry of an edge as the network sees it: (r_ij, |r_ij|) as published, or with the unit
        vector and `num_radial` Gaussians of |r_ij| beside it, which learn much faster; or the
        distance and its Gaussians alone, which makes the network exactly symmetric under rotations
        and reflections and is meant for attention that sees angles.
    num_radial : int
        Number of Gaussians of the radial and distance encodings.
    angular_degree : int
        If above 0, queries, keys and values of the attention carry spherical harmonics up to this
        degree, so that it sees the angles between neighbors
        (`pet_calc.models.pet.layers.AngularAttention`).
    short_range_repulsion : bool
        Add a pair repulsion below the shortest distance that each pair of elements has in the
        training data (`pet_calc.models.pet.repulsion`).
    featurizer_type : {"feedforward", "residual"}
        How layers hand over: a learned combination of both directions of an edge, read out after
        the last layer; or the mean of message and reverse edge, read out after every layer.
    transformer_type : {"PreLN", "PostLN"}
        Normalize what enters attention and feed-forward layers, or the sum with what they return.
    normalization : {"RMSNorm", "LayerNorm"}
        The normalization of tokens.
    activation : {"GLU", "SiLU"}
        Feed-forward layers: gated linear unit (metatrain calls it "SwiGLU", though its gate is a
        plain sigmoid), or SiLU.
    cutoff_function : {"Bump", "Cosine"}
        Weight of an edge; "Cosine" is only once continuously differentiable.
    num_neighbors_adaptive : float, optional
        If given, each atom has a cutoff of its own, at most `cutoff`, chosen for about this many
        neighbors (`pet_calc.models.pet.adaptive_cutoff`).
    adaptive_cutoff_method : {"solver", "grid"}
        How that cutoff is found; "grid" is the method of older checkpoints.
    cutoff_width_adaptive : float
        Width in Å of the step by which neighbors are counted for it.
    zbl : bool
        Add the Ziegler-Biersack-Littmark repulsion of nuclei (`pet_calc.models.pet.zbl`).
    system_conditioning : bool
        Node features depend on the total charge and spin multiplicity of the system.
    max_charge, max_spin_multiplicity : int
        Largest |charge| and 2S + 1 in the tables of the conditioning.
    energy_heads : tuple of str
        Names of the energy heads; the first is the main one, the others are variants with
        readouts, reference energies and scales of their own.
    energy_head : str, optional
        The head that the energy is read from, and that is trained; by default the first.
    direct_forces, direct_stress : bool
        Heads that predict forces or stress directly, not as derivatives of the energy.
    ecse : {"none", "layerwise"}
        "layerwise" evaluates every message-passing layer in local frames of each atom and averages
        what it returns (`pet_calc.models.pet.tokens`): exactly symmetric under rotations and
        reflections, at the cost of one evaluation per frame; to be trained that way.
    frames : FrameConfig
        Constants of those frames.
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
    angular_degree: int = 0
    short_range_repulsion: bool = False
    featurizer_type: Literal["feedforward", "residual"] = "feedforward"
    transformer_type: Literal["PreLN", "PostLN"] = "PreLN"
    normalization: Literal["RMSNorm", "LayerNorm"] = "RMSNorm"
    activation: Literal["GLU", "SiLU"] = "GLU"
    cutoff_function: Literal["Bump", "Cosine"] = "Bump"
    num_neighbors_adaptive: float | None = None
    adaptive_cutoff_method: Literal["solver", "grid"] = "solver"
    cutoff_width_adaptive: float = 1.0
    zbl: bool = False
    system_conditioning: bool = False
    max_charge: int = 10
    max_spin_multiplicity: int = 10
    energy_heads: tuple[str, ...] = ("energy",)
    energy_head: str | None = None
    direct_forces: bool = False
    direct_stress: bool = False
    ecse: Literal["none", "layerwise"] = "none"
    frames: FrameConfig = field(default_factory=FrameConfig)

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
            "num_gnn_layers", "num_radial", "max_charge", "max_spin_multiplicity",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.d_pet % self.num_heads:
            raise ValueError(
                f"`d_pet` must be a multiple of `num_heads`, got {self.d_pet} and {self.num_heads}"
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be {' or '.join(map(repr, allowed))}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.attention_temperature <= 0:
            raise ValueError(
                f"`attention_temperature` must be positive, got {self.attention_temperature}"
            )

        for name in ("num_neighbors_adaptive", "cutoff_width_adaptive"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.ecse == "layerwise" and self.num_neighbors_adaptive is not None:
            raise ValueError(
                "`ecse` 'layerwise' needs a fixed cutoff: with an adaptive one a neighbor could "
                "leave while it still spans a frame; leave out `num_neighbors_adaptive`"
            )
        if self.angular_degree < 0:
            raise ValueError(f"`angular_degree` must not be negative, got {self.angular_degree}")
        if self.ecse == "layerwise" and (self.angular_degree or self.input_encoding == "distance"):
            raise ValueError(
                "`ecse` 'layerwise' shows directions in local frames; attention that sees angles "
                "(`angular_degree`) and the 'distance' encoding need no frames, leave out `ecse`"
            )
        if self.invariant and (self.direct_forces or self.direct_stress):
            raise ValueError(
                "`ecse` 'layerwise' and the 'distance' encoding make features invariant, from "
                "which no direction of a direct force or stress can be read; leave out the direct "
                "heads"
            )
        object.__setattr__(self, "energy_heads", tuple(self.energy_heads))
        if not self.energy_heads or len(set(self.energy_heads)) < len(self.energy_heads):
            raise ValueError(f"`energy_heads` must be unique names, got {self.energy_heads}")
        bad = [h for h in self.energy_heads if not h or "." in h]
        if bad:
            raise ValueError(f"`energy_heads` must be names without dots, got {bad}")
        if self.energy_head is not None and self.energy_head not in self.energy_heads:
            raise ValueError(
                f"`energy_head` must be one of {list(self.energy_heads)}, got {self.energy_head!r}"
            )

    @property
    def num_readout_layers(self) -> int:
        """Number of layers whose features are read out."""
        return self.num_gnn_layers if self.featurizer_type == "residual" else 1

    @property
    def invariant(self) -> bool:
        """Whether features do not change when a structure is rotated or mirrored."""
        return self.ecse == "layerwise" or self.input_encoding == "distance"

    @property
    def geometry_width(self) -> int:
        """How many numbers the network sees of each edge beside its species."""
        if self.input_encoding == "cartesian":
            return 4
        return self.num_radial + (7 if self.input_encoding == "radial" else 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; those of frames and angles only where there are any."""
        values = asdict(self) | {
            "elements": list(self.elements),
            "energy_heads": list(self.energy_heads),
        }
        if self.ecse == "none":
            del values["ecse"], values["frames"]
        if self.angular_degree == 0:
            del values["angular_degree"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PETConfig:
        """Config from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown PET option(s) {unknown}; known are {sorted(known)}")
        if isinstance(values.get("frames"), dict):
            values = values | {"frames": FrameConfig.from_dict(values["frames"])}
        return cls(**values)
