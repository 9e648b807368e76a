"""Configuration of a training run, read from a TOML file."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pet_calc.models.architectures import TrainableConfig, architecture_of, trainable_config
from pet_calc.models.crystalformer import CrystalformerConfig
from pet_calc.models.pet import PETConfig
from pet_calc.models.pet.uncertainty import CALIBRATIONS, Calibration
from pet_calc.pretrained import load
from pet_calc.training.core.config_reader import build, read_toml, require_sections
from pet_calc.training.core.optimizers import OptimizerConfig
from pet_calc.training.core.schedule import warmup_cosine
from pet_calc.training.potentials.data_config import DataConfig, FineTuneConfig

__all__ = [
    "DataConfig", "FineTuneConfig", "HuberConfig", "LossConfig", "OptimizerConfig", "StageConfig",
    "TrainConfig", "UncertaintyConfig",
]  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """Weights of the squared errors: energy per atom, force component, stress component.

    `rise` is that of what an energy per atom rises too little (`LeastRise`), where there are such
    bounds.
    """

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 0.0
    rise: float = 0.0


@dataclass(frozen=True)
class HuberConfig:
    """Errors from which on the loss grows linearly, no longer as the square (Huber's loss).

    For data of many kinds, of which a few frames have errors many times the usual one: squared,
    they drown the rest. Without a value the label's loss is the square throughout.

    Attributes
    ----------
    energy : float, optional
        Error per atom, eV.
    forces : float, optional
        Length of the error of the force on an atom, eV/Å.
    stress : float, optional
        Length of the error of the six components of the stress, eV/Å³.
    """

    energy: float | None = None
    forces: float | None = None
    stress: float | None = None

    def __post_init__(self) -> None:
        for label, value in asdict(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"`huber.{label}` must be positive, got {value}")


@dataclass(frozen=True)
class StageConfig:
    """One stage of the training, with its own schedule and loss weights.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    learning_rate : float
        Peak value: linear warm-up to it, cosine decay to `final_learning_rate`.
    final_learning_rate : float
    warmup_steps : int
    batch_size : int
        Frames that are computed at once, on each process.
    accumulate : int
        Such batches in a step, on each process. Their gradients add up to those of one large batch,
        at the memory of a small one.
    loss : LossConfig
    final_loss : LossConfig, optional
        If given, the weights go linearly from those of `loss` to these ones; a weight that is not
        named in it stays.
    frames : {"sampled", "all"}
        With ``model.ecse = "layerwise"``: one drawn frame for each atom, which costs no more than
        a plain model, or all of them, as in every evaluation.
    """

    steps: int
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup_steps: int = 100
    batch_size: int = 1
    accumulate: int = 1
    loss: LossConfig = field(default_factory=LossConfig)
    final_loss: LossConfig | None = None
    frames: Literal["sampled", "all"] = "sampled"

    def __post_init__(self) -> None:
        if self.frames not in ("sampled", "all"):
            raise ValueError(f"`frames` must be 'sampled' or 'all', got {self.frames!r}")
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.warmup_steps < 0:
            raise ValueError(
                "`steps`, `batch_size` and `accumulate` must be at least 1, `warmup_steps` at "
                "least 0"
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step of the stage, 0-based."""
        return warmup_cosine(
            step,
            steps=self.steps,
            warmup=self.warmup_steps,
            peak=self.learning_rate,
            final=self.final_learning_rate,
        )

    @property
    def last_loss(self) -> LossConfig:
        """The weights at the end, by which the best weights of the network are chosen."""
        return self.final_loss or self.loss

    def loss_at(self, step: int) -> LossConfig:
        """The weights at a step of the stage, 0-based."""
        if self.final_loss is None:
            return self.loss
        x = step / max(1, self.steps - 1)
        pairs = zip(astuple(self.loss), astuple(self.final_loss), strict=True)
        return LossConfig(*((1 - x) * a + x * b for a, b in pairs))


@dataclass(frozen=True)
class UncertaintyConfig:
    """The uncertainty model that is fitted to the trained potential (LLPR).

    Attributes
    ----------
    calibration : {"absolute_residuals", "squared_residuals", "crps"}
        How the energy errors on the validation frames set the scale: by their mean magnitude,
        which outliers hardly change, by the largest likelihood, or by the smallest continuous
        ranked probability score.
    members : int
        Last layers in the ensemble that carries uncertainties on to forces and stress; 0 is none.
    """

    calibration: Calibration = "absolute_residuals"
    members: int = 32

    def __post_init__(self) -> None:
        if self.calibration not in CALIBRATIONS:
            raise ValueError(
                f"`uncertainty.calibration` must be one of {list(CALIBRATIONS)}, got "
                f"{self.calibration!r}"
            )
        if self.members < 0 or self.members == 1:
            raise ValueError(f"`uncertainty.members` must be 0 or at least 2, got {self.members}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run.

    Attributes
    ----------
    name : str
        Name of the potential.
    seed : int
        Of initial weights, order of the data and augmentation.
    model : PETConfig or CrystalformerConfig
        In the file, ``architecture`` beside the options says which; "pet" if absent. A fine-tuning
        without `elements` takes the configuration of the potential, changed by what is given.
    data : DataConfig
    stages : tuple of StageConfig
        Run one after the other; a fine-tuning has one by default (`default_stage`).
    optimizer : OptimizerConfig
    augment : bool
        Apply a random rotation or rotary reflection of O(3) to every structure in every step.
    validation_interval : int
        Steps between validations.
    uncertainty : UncertaintyConfig, optional
        Fit an uncertainty model at the end; it changes nothing else.
    fine_tune : FineTuneConfig, optional
        Start from another potential.
    dtype : {"float32", "float64"}
        Precision of the weights, in training and as saved.
    repulsion_reach : float, optional
        Largest distance at which the short-range repulsion may set in, as a share of the sum of
        the covalent radii. Without it a pair repels below its shortest distance in the training
        data, however long that is: right where every pair is seen at all distances that occur,
        wrong for data of many elements, in which other crystals have shorter ones.
    huber : HuberConfig, optional
        Errors from which on the loss grows linearly.
    """

    name: str
    model: TrainableConfig
    data: DataConfig
    stages: tuple[StageConfig, ...]
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0
    augment: bool = True
    validation_interval: int = 250
    uncertainty: UncertaintyConfig | None = None
    fine_tune: FineTuneConfig | None = None
    dtype: Literal["float32", "float64"] = "float32"
    repulsion_reach: float | None = None
    huber: HuberConfig | None = None

    def __post_init__(self) -> None:
        if self.repulsion_reach is not None and not self.repulsion_reach > 0:
            raise ValueError(f"`repulsion_reach` must be positive, got {self.repulsion_reach}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"`dtype` must be 'float32' or 'float64', got {self.dtype!r}")
        if not self.stages:
            raise ValueError("a training run needs at least one [[stages]] section")
        if self.uncertainty is not None and not isinstance(self.model, PETConfig):
            raise ValueError(
                "[uncertainty] is for models of the architecture 'pet'; train several models of "
                "another one, whose spread is an uncertainty too"
            )

        for level in {s.level for s in self.data.sets} - {None}:
            known = self.model.energy_heads if isinstance(self.model, PETConfig) else ()
            if level not in known:
                raise ValueError(
                    f"a `level` of [[data.sets]] must be one of the `energy_heads` of [model], "
                    f"{list(known)}, got {level!r}"
                )
        direct = isinstance(self.model, PETConfig) and (
            self.model.direct_forces or self.model.direct_stress
        )
        if self.levels and direct:
            raise ValueError(
                "direct forces and stress belong to one level of theory; leave out the direct "
                "heads, or the `level` of [[data.sets]]"
            )

    @property
    def main_level(self) -> str:
        """The energy head of data that name no level."""
        model = self.model
        return (model.energy_head or model.energy_heads[0]) if isinstance(model, PETConfig) else ""

    @property
    def levels(self) -> tuple[str, ...]:
        """Energy heads that the training data belong to; none where no file names a level."""
        sets = self.data.of_split("train")
        if not isinstance(self.model, PETConfig) or not any(s.level for s in self.data.sets):
            return ()
        used = {s.level or self.main_level for s in sets}
        if self.fine_tune is not None and self.fine_tune.replay:
            used.add(self.main_level)
        return tuple(h for h in self.model.energy_heads if h in used)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(s.steps for s in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """Stage index and step within that stage of a global step (0-based)."""
        for k, stage in enumerate(self.stages):
            if step < stage.steps:
                return k, step
            step -= stage.steps
        raise ValueError("`step` lies beyond the last stage")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the TOML file."""
        model, architecture = self.model.to_dict(), architecture_of(self.model)
        named = model if architecture == "pet" else {"architecture": architecture} | model
        values = asdict(self) | {"model": named}
        if self.fine_tune is not None:
            values["fine_tune"] = self.fine_tune.to_dict()
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Config from the tables of a TOML file; unknown names are refused."""
        values = dict(values)
        tuned = values.get("fine_tune") is not None
        require_sections(values, ("data",) if tuned else ("name", "model", "data", "stages"))
        uncertainty = values.pop("uncertainty", None)
        if uncertainty is not None:
            uncertainty = build(UncertaintyConfig, uncertainty, "uncertainty")
        fine_tune = values.pop("fine_tune", None)
        if fine_tune is not None:
            fine_tune = FineTuneConfig.from_dict(fine_tune)
            values.setdefault("name", f"{Path(fine_tune.source).name}-tuned")
            values.setdefault("stages", [default_stage(fine_tune)])
        stages = tuple(stage_from_dict(s) for s in values.pop("stages"))
        huber = values.pop("huber", None)
        optimizer = values.pop("optimizer", {})
        return build(
            cls,
            values
            | {
                "model": model_from_dict(values.pop("model", {}), fine_tune),
                "data": DataConfig.from_dict(values.pop("data")),
                "stages": stages,
                "optimizer": build(OptimizerConfig, optimizer, "optimizer"),
                "uncertainty": uncertainty,
                "fine_tune": fine_tune,
                "huber": None if huber is None else build(HuberConfig, huber, "huber"),
            },
            "the top level",
        )

    @classmethod
    def from_toml(cls, path: Path | str) -> TrainConfig:
        """Config from a TOML file."""
        return cls.from_dict(read_toml(path))


def model_from_dict(values: dict[str, Any], tune: FineTuneConfig | None) -> TrainableConfig:
    """The model's configuration; without `elements` a fine-tuning takes that of the potential.

    Options that are given replace those of the potential.

    Raises
    ------
    ValueError
        For another architecture than that of the potential, or one that cannot be trained.
    """
    values = dict(values)
    if tune is None or "elements" in values:
        return trainable_config(values.pop("architecture", "pet"), values)
    potential = load(tune.source)
    config = potential.model.config
    if not isinstance(config, PETConfig | CrystalformerConfig):
        raise ValueError(f"{potential.name} is of a kind that cannot be trained; name another one")
    architecture = architecture_of(config)
    if values.pop("architecture", architecture) != architecture:
        raise ValueError(
            f"the architecture in [model] must be that of {potential.name}, {architecture!r}; "
            f"leave it out"
        )
    return trainable_config(architecture, config.to_dict() | values)


def default_stage(tune: FineTuneConfig) -> dict[str, Any]:
    """The stage of a fine-tuning that names none."""
    return {
        "steps": 2000,
        "learning_rate": 3e-4 if tune.method == "full" else 1e-3,
        "warmup_steps": 100,
        "batch_size": 4,
        "loss": {"energy": 20.0, "forces": 1.0},
    }


def stage_from_dict(values: dict[str, Any]) -> StageConfig:
    """A stage from its table."""
    losses = {"loss": build(LossConfig, values.get("loss", {}), "stages.loss")}
    if values.get("final_loss") is not None:
        final = values.get("loss", {}) | values["final_loss"]
        losses["final_loss"] = build(LossConfig, final, "stages.final_loss")
    return build(StageConfig, values | losses, "stages")
