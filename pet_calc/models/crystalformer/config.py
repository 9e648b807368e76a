"""Hyper-parameters of Crystalformer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pet_calc.models.crystalformer.directions import num_directional
from pet_calc.models.ecse.frames import FrameConfig

Domain = Literal["real", "multihead", "real-reci", "reci"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "images": ("smooth", "box"),
    "domain": ("real", "multihead", "real-reci", "reci"),
    "width_function": ("softplus", "elu"),
    "activation": ("SiLU", "ReLU"),
    "readout": ("atoms", "mean"),
    "normalization": ("none", "RMSNorm"),
}


@dataclass(frozen=True)
class CrystalformerConfig:
    """Architecture of a Crystalformer; the defaults are a smooth potential of the published size.

    `published` gives the model of the paper instead.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers covered, ascending.
    cutoff : float
        Reach of real-space attention in Å (images "smooth").
    cutoff_width : float
        Width in Å over which the weight of an image falls from 1 to 0.
    d_model, num_heads, num_layers, d_feedforward, d_head : int
        Widths of features, attention heads and their number, blocks, hidden layer of the
        feed-forward networks, hidden layer of the readout.
    gaussian_width : float
        σ in Å of a real-space head whose query is zero.
    gaussian_width_max : float, optional
        If given, the heads start from widths between `gaussian_width` and this, in equal ratios.
    gaussian_floor, gaussian_slope : float
        b and a of ρ: σ^-2 stays above b times its neutral value, and ρ' = a there.
    width_function : {"softplus", "elu"}
        ρ: infinitely smooth, or as published, once differentiable.
    num_radial : int
        Number of Gaussians that encode the distance in the values; 0 for none.
    radial_max : float
        Center of the last of them, in Å.
    num_angular : int
        Number of Gaussians that encode the cosine with each axis of the atoms' frames in the
        values (`directions`); 0 for none, then distances alone enter.
    frames : FrameConfig
        Constants of those frames.
    normalization : {"none", "RMSNorm"}
        Of what enters attention and feed-forward networks; none as published.
    activation : {"SiLU", "ReLU"}
    domain : {"real", "multihead", "real-reci", "reci"}
        Heads in real space; half of them in reciprocal space; layers by turns in real and
        reciprocal space; all in reciprocal space.
    reciprocal_width : float
        As `gaussian_width` for heads in reciprocal space, where b bounds σ from below.
    reciprocal_cutoff, reciprocal_cutoff_width : float
        Largest wave number in 1/Å and width of the step there (images "smooth").
    images : {"smooth", "box"}
        All images within a cutoff, with smooth weights; or, as published, those in the fixed box
        of `image_range` cells around the atoms as they were given, which is neither smooth nor
        invariant under translations of single atoms by lattice vectors.
    image_range : int
        Half-width of that box in cells, in real and reciprocal space.
    readout : {"atoms", "mean"}
        Sum of per-atom energies, or properties from the mean of the atoms' features.
    targets : tuple of str
        Names of the properties (readout "mean").
    short_range_repulsion : bool
        Add a pair repulsion below the shortest distance that each pair of elements has in the
        training data (`pet_calc.models.pet.repulsion`).
    """

    elements: tuple[int, ...]
    cutoff: float = 6.0
    cutoff_width: float = 2.0
    d_model: int = 128
    num_heads: int = 8
    num_layers: int = 4
    d_feedforward: int = 512
    d_head: int = 128
    gaussian_width: float = 1.4
    gaussian_width_max: float | None = None
    gaussian_floor: float = 0.5
    gaussian_slope: float = 0.1
    width_function: Literal["softplus", "elu"] = "softplus"
    num_radial: int = 64
    radial_max: float = 14.0
    num_angular: int = 0
    frames: FrameConfig = field(default_factory=FrameConfig)
    normalization: Literal["none", "RMSNorm"] = "none"
    activation: Literal["SiLU", "ReLU"] = "SiLU"
    domain: Domain = "real"
    reciprocal_width: float = 2.2
    reciprocal_cutoff: float = 3.5
    reciprocal_cutoff_width: float = 1.0
    images: Literal["smooth", "box"] = "smooth"
    image_range: int = 2
    readout: Literal["atoms", "mean"] = "atoms"
    targets: tuple[str, ...] = ()
    short_range_repulsion: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        object.__setattr__(self, "targets", tuple(self.targets))
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"`elements` must be ascending and unique, got {self.elements}")
        if not 0 < self.elements[0] <= self.elements[-1] <= 118:
            raise ValueError(f"`elements` must be atomic numbers 1..118, got {self.elements}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be {' or '.join(map(repr, allowed))}, "
                    f"got {getattr(self, name)!r}"
                )
        for width, whole in (
            ("cutoff_width", "cutoff"),
            ("reciprocal_cutoff_width", "reciprocal_cutoff"),
        ):
            if not 0 < getattr(self, width) <= getattr(self, whole):
                raise ValueError(
                    f"`{width}` must lie in (0, {whole}], got {getattr(self, width)} with "
                    f"{getattr(self, whole)}"
                )
        counts = ("d_model", "num_heads", "num_layers", "d_feedforward", "d_head", "image_range")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.num_radial < 0:
            raise ValueError(f"`num_radial` must not be negative, got {self.num_radial}")
        if self.num_angular and (
            self.num_angular < 2 or self.images != "smooth" or self.domain == "reci"
        ):
            raise ValueError(
                f"`num_angular` must be 0, or at least 2 with `images` 'smooth' and heads in real "
                f"space, got {self.num_angular} with {self.images!r} and {self.domain!r}"
            )
        if self.d_model % self.num_heads or (self.domain == "multihead" and self.num_heads % 2):
            raise ValueError(
                f"`d_model` must be a multiple of `num_heads`, which must be even for the domain "
                f"'multihead', got {self.d_model} and {self.num_heads}"
            )
        positive = ("gaussian_width", "gaussian_slope", "radial_max", "reciprocal_width")
        for name in (*positive, *(["gaussian_width_max"] if self.gaussian_width_max else [])):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if not 0 <= self.gaussian_floor < 1:
            raise ValueError(f"`gaussian_floor` must lie in [0, 1), got {self.gaussian_floor}")
        if self.readout == "atoms":
            self._check_potential()
        elif not self.targets:
            raise ValueError("`targets` must name the properties of a model that reads out means")

    def _check_potential(self) -> None:
        if self.images != "smooth":
            raise ValueError("a potential must have `images` 'smooth': a box makes energies jump")
        if self.targets:
            raise ValueError("a potential gives energies; leave `targets` out")
        if self.num_radial == 0 or self.domain == "reci":
            raise ValueError(
                "a potential needs `num_radial` above 0 and heads in real space: without them it "
                "does not feel where the atoms of an element are"
            )

    @property
    def real_heads(self) -> tuple[int, ...]:
        """Number of heads in real space in each layer; the others are in reciprocal space."""
        h = self.num_heads
        by_domain = {"real": (h, h), "multihead": (h // 2, h // 2), "real-reci": (h, 0)}
        even, odd = by_domain.get(self.domain, (0, 0))
        return tuple(odd if k % 2 else even for k in range(self.num_layers))

    @property
    def num_encodings(self) -> int:
        """Number of columns that encode an image in the values."""
        return self.num_radial + num_directional(self.num_angular)

    @property
    def head_widths(self) -> tuple[float, ...]:
        """Neutral σ of each real-space head in Å."""
        first, last = self.gaussian_width, self.gaussian_width_max or self.gaussian_width
        n = max(self.num_heads - 1, 1)
        return tuple(first * (last / first) ** (h / n) for h in range(self.num_heads))

    @classmethod
    def published(cls, **changes: Any) -> CrystalformerConfig:
        """The model of the paper [arXiv:2403.11686], for one property, with any changes."""
        options: dict[str, Any] = {
            "elements": tuple(range(1, 99)),
            "activation": "ReLU",
            "width_function": "elu",
            "images": "box",
            "readout": "mean",
            "targets": ("property",),
        }
        return cls(**(options | changes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; those of frames only where there are any."""
        values = asdict(self) | {"elements": list(self.elements), "targets": list(self.targets)}
        if self.num_angular == 0:
            del values["num_angular"], values["frames"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CrystalformerConfig:
        """Config from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown Crystalformer option(s) {unknown}; known are {sorted(known)}"
            )
        if isinstance(values.get("frames"), dict):
            values = values | {"frames": FrameConfig.from_dict(values["frames"])}
        return cls(**values)
