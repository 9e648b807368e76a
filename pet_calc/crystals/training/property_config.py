"""Configuration of the training of a property model, read from a TOML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from pet_calc.crystals.models import Target
from pet_calc.training.core.config_reader import build, read_toml, require_sections
from pet_calc.training.core.schedule import inverse_square_root, one_cycle

LOSSES: Final = ("l1", "mse")


@dataclass(frozen=True)
class PropertyData:
    """Files of crystals; relative paths start at the data folder of the run."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class PropertySchedule:
    """How a property model is trained.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Crystals in a step.
    learning_rate : float
        The largest one.
    schedule : {"onecycle", "inverse_sqrt"}
        Up over the first 30 % and down along half a cosine each [Smith, arXiv:1708.07120]; or
        lr √(T / (T + t)) with T = 4000 steps, as Crystalformer was trained.
    loss : {"l1", "mse"}
        Of standardized targets; classes have the cross entropy.
    weight_decay : float
        Decoupled, of matrices only.
    average_epochs : int
        Equal average of the weights after every step of the last epochs (SWA).
    frozen_epochs : int
        Last epochs in which batch normalizations keep the statistics of the training crystals.
        Before, each batch has its own, and its crystals are of similar size: the network learns
        to do without what all of them have in common, but a prediction has to do without such
        company.
    gradient_clip : float
        Largest norm of the gradient.
    full_edges : int
        Crystals whose graph has more edges are drawn in an epoch with the probability full_edges /
        edges only: a tenth of the crystals has half of all edges. 0 draws all of them.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    schedule: Literal["onecycle", "inverse_sqrt"] = "onecycle"
    loss: Literal["l1", "mse"] = "l1"
    weight_decay: float = 1e-5
    average_epochs: int = 3
    frozen_epochs: int = 0
    gradient_clip: float = 5.0
    full_edges: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("schedule", ("onecycle", "inverse_sqrt")), ("loss", LOSSES)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if min(self.epochs, self.batch_size, self.average_epochs) < 1:
            raise ValueError("`epochs`, `batch_size` and `average_epochs` must be at least 1")
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise ValueError(
                f"`frozen_epochs` must lie between 0 and `epochs`, got {self.frozen_epochs}"
            )

    def rate_at(self, epoch: float, per_epoch: int) -> float:
        """The learning rate at a time in epochs, which may lie within one of `per_epoch` steps."""
        if self.schedule == "inverse_sqrt":
            return inverse_square_root(epoch * per_epoch, peak=self.learning_rate)
        return one_cycle(epoch, total=self.epochs, peak=self.learning_rate)


@dataclass(frozen=True)
class PropertyTraining:
    """Everything that determines a training of a property model.

    Attributes
    ----------
    name : str
    property : dict
        ``backbone``, ``hidden``, ``options``, ``targets``, ``scales`` and ``potential`` of
        `PropertyConfig`; the elements come from the data.
    data : PropertyData
    schedule : PropertySchedule
    seed : int
    members : int
        Networks that are trained one after the other, with seeds from `seed` on; the model is
        their mean.
    fine_tune : str, optional
        Shipped model or folder whose weights the networks start from; ``from`` in a table
        [fine_tune]. Its elements stay, and so do mean and scale of targets that it has.
    """

    name: str
    property: dict[str, Any]
    data: PropertyData
    schedule: PropertySchedule
    seed: int = 0
    members: int = 1
    fine_tune: str | None = None

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ValueError(f"`members` must be at least 1, got {self.members}")

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """What is learned."""
        return tuple(build(Target, t, "property.targets") for t in self.property.get("targets", ()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PropertyTraining:
        """From the tables of a TOML file; unknown names are refused."""
        require_sections(values, ("name", "property", "data", "schedule"))
        settings = values | {
            "data": build(PropertyData, values["data"], "data"),
            "schedule": build(PropertySchedule, values["schedule"], "schedule"),
        }
        if "fine_tune" in settings:
            source = settings["fine_tune"]
            if not isinstance(source, dict) or set(source) != {"from"}:
                raise ValueError(
                    f"the table [fine_tune] of a property model has one option, `from`, got "
                    f"{source!r}"
                )
            settings["fine_tune"] = source["from"]
        return build(cls, settings, "the top level")

    @classmethod
    def from_toml(cls, path: Path | str) -> PropertyTraining:
        """From a TOML file."""
        return cls.from_dict(read_toml(path))
