r"""A backbone with the properties that are read from its pooled features.

With p the mean of the features over the atoms of a crystal,

.. math:: f = \varphi(W p + b), \qquad y_t = m_t + s_t (w_t \cdot f + b_t)

with the activation φ of the backbone (CGCNN has φ(p) for p), for target t with mean m and scale s
of the training set, in a logarithm if the target is one. With C the covariance of f over the
training set, the distance of a crystal from it is that of the last layer (LLPR):

.. math:: d = \sqrt{f^T (C + \varsigma I)^{-1} f}

Optionally the last layer has, for each target, the logarithm of the error's scale as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from pet_calc.crystals.models.backbone import Backbone, Encoding
from pet_calc.crystals.models.cgcnn import CGCNN, CGCNNConfig
from pet_calc.crystals.models.crysformer import Crysformer, CrysformerConfig
from pet_calc.crystals.models.crystalformer import (
    CrystalformerBackbone,
    CrystalformerBackboneConfig,
)
from pet_calc.crystals.models.graph import CrystalGraph
from pet_calc.crystals.models.matformer import Matformer, MatformerConfig
from pet_calc.crystals.models.pet import PETBackbone, PETBackboneConfig
from pet_calc.errors import UnsupportedElementError
from pet_calc.models.species import species_table

#: Bound of the logarithm of a standardized scale: an error is not learnt to be nothing.
LARGEST_LOG: Final = 5.0

#: Backbones by name.
BACKBONES: Final[dict[str, tuple[type[Any], type[Any]]]] = {
    "cgcnn": (CGCNN, CGCNNConfig),
    "crysformer": (Crysformer, CrysformerConfig),
    "crystalformer": (CrystalformerBackbone, CrystalformerBackboneConfig),
    "matformer": (Matformer, MatformerConfig),
    "pet": (PETBackbone, PETBackboneConfig),
}


@dataclass(frozen=True)
class Target:
    """One property.

    Attributes
    ----------
    name : str
        Such as "band_gap"; the key of the labels.
    unit : str
        Such as "eV"; of what a prediction returns.
    kind : {"linear", "log10", "class"}
        Whether the model learns the number, its decimal logarithm, or the logit of a yes.
    weight : float
        In the loss.
    """

    name: str
    unit: str = ""
    kind: Literal["linear", "log10", "class"] = "linear"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "log10", "class"):
            raise ValueError(
                f"`kind` of a target must be 'linear', 'log10' or 'class', got {self.kind!r}"
            )


@dataclass(frozen=True)
class PotentialTerm:
    """A potential whose energy is an estimate of a target too.

    Attributes
    ----------
    name : str
        Of a shipped potential, whose energies count from the zero of the target.
    target : str
        That its energy per atom estimates, such as "formation_energy".
    """

    name: str
    target: str


@dataclass(frozen=True)
class PropertyConfig:
    """Options of `PropertyModel`.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers, ascending.
    targets : tuple of Target
    backbone : str
        Of `BACKBONES`.
    options : dict
        Of the backbone.
    hidden : int
        Features that the properties are read from.
    scales : bool
        Learn the size of the error of each crystal too.
    potential : PotentialTerm, optional
        A potential that has a say in the value of an ensemble.
    """

    elements: tuple[int, ...]
    targets: tuple[Target, ...]
    backbone: str = "cgcnn"
    options: dict[str, Any] = field(default_factory=dict)
    hidden: int = 64
    scales: bool = False
    potential: PotentialTerm | None = None

    def __post_init__(self) -> None:
        term = self.potential
        if term is not None and (term.target, "linear") not in [
            (t.name, t.kind) for t in self.targets
        ]:
            raise ValueError(
                f"`potential.target` must be one of the targets, and of kind 'linear', got "
                f"{term.target!r}"
            )
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"`backbone` must be one of {sorted(BACKBONES)}, got {self.backbone!r}"
            )
        if not self.targets:
            raise ValueError("a property model needs at least one target")
        known = {f.name for f in fields(BACKBONES[self.backbone][1])}
        if unknown := sorted(set(self.options) - known):
            raise ValueError(
                f"unknown option(s) {unknown} of the backbone {self.backbone}; known are "
                f"{sorted(known)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML."""
        return asdict(self) | {
            "elements": list(self.elements),
            "targets": [asdict(t) for t in self.targets],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PropertyConfig:
        """Config from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown option(s) {unknown} of a property model; known: {known}")
        targets = tuple(Target(**t) for t in values["targets"])
        term = values.get("potential")
        return cls(
            **values
            | {
                "elements": tuple(values["elements"]),
                "targets": targets,
                "potential": None if term is None else PotentialTerm(**term),
            }
        )


class PropertyModel(nn.Module):
    """Properties of crystals; see the module.

    Parameters
    ----------
    config : PropertyConfig

    Attributes
    ----------
    target_mean, target_scale : Tensor, shape (n_targets,), float64
    cholesky : Tensor, shape (hidden, hidden), float64
        Of C + ς I.
    """

    target_mean: Tensor
    target_scale: Tensor
    cholesky: Tensor
    species_of_number: Tensor

    def __init__(self, config: PropertyConfig) -> None:
        super().__init__()
        self.config = config
        network, options = BACKBONES[config.backbone]
        self.backbone = network(options(**config.options), len(config.elements))
        self.trunk = nn.Linear(self.backbone.width, config.hidden)
        n = len(config.targets)
        self.last = nn.Linear(config.hidden, 2 * n if config.scales else n)
        self.register_buffer("target_mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("target_scale", torch.ones(n, dtype=torch.float64))
        self.register_buffer("cholesky", torch.eye(config.hidden, dtype=torch.float64))
        table = species_table(config.elements)
        self.register_buffer("species_of_number", table, persistent=False)

    @property
    def encoder(self) -> Backbone:
        """The backbone."""
        return self.backbone

    def species(self, numbers: Tensor) -> Tensor:
        """Index of each node's element; `UnsupportedElementError` for one not trained on."""
        species = self.species_of_number[numbers.clamp(0, 118)]
        if bool((species < 0).any()):
            unknown = sorted(set(numbers[species < 0].tolist()))
            raise UnsupportedElementError(
                f"this property model was trained on {len(self.config.elements)} elements, but "
                f"the crystal contains the atomic numbers {unknown}"
            )
        return species

    def encode(self, graph: CrystalGraph) -> Encoding:
        """Features of every atom and their means, of the graphs that `encoder` asks for."""
        features = self.backbone.features(self.species(graph.numbers), graph)
        return Encoding(features[graph.node_of_atom], graph.pool(features))

    def last_features(self, graph: CrystalGraph) -> Tensor:
        """f, (n_systems, hidden)."""
        pooled = graph.pool(self.backbone.features(self.species(graph.numbers), graph))
        phi = self.backbone.activation
        return phi(self.trunk(phi(pooled) if self.backbone.activates_pooled else pooled))

    def forward(self, graph: CrystalGraph) -> Tensor:
        """Standardized properties (n_systems, n_targets), logits for classes.

        With ``config.scales`` followed by the logarithms of the scales of their errors.
        """
        return self.last(self.last_features(graph))

    def read_out(self, features: Tensor) -> Tensor:
        """Properties (n_systems, n_targets), float64: logarithms and logits where these are."""
        found = self.last(features)[:, : len(self.config.targets)]
        return found.double() * self.target_scale + self.target_mean

    def scales(self, features: Tensor) -> Tensor:
        """Sizes of the errors (n_systems, n_targets), float64, as learnt; those of `read_out`."""
        n = len(self.config.targets)
        if not self.config.scales:
            return torch.ones(len(features), n, dtype=torch.float64)
        logarithms = self.last(features)[:, n:].double().clamp(-LARGEST_LOG, LARGEST_LOG)
        return logarithms.exp() * self.target_scale

    def distances(self, features: Tensor) -> Tensor:
        """√(fᵀ(C + ςI)⁻¹f), (n_systems,): how unlike the training set a crystal is."""
        whitened = torch.linalg.solve_triangular(self.cholesky, features.double().T, upper=False)
        return torch.linalg.vector_norm(whitened, dim=0)
