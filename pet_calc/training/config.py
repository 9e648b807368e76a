"""Configuration of a training run, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from pet_calc.models.architectures import TrainableConfig, architecture_of, trainable_config
from pet_calc.models.pet import PETConfig
from pet_calc.models.pet.uncertainty import CALIBRATIONS, Calibration

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Files and labels.

    Attributes
    ----------
    train, test : tuple of str
        Structure files; relative paths start at the data folder of the run.
    validation : tuple of str
        Files to validate on; if empty, `validation_frames` frames spread evenly over the
        training files are held out.
    validation_frames : int
        Number of held-out frames.
    repeat : tuple of int
        How often an epoch sees the frames of each file of `train`, so that a small hard set is not
        drowned by a large easy one; once each if empty.
    keys : dict
        Label to key, where the usual names do not serve.
    """

    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_frames: int = 10
    repeat: tuple[int, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.repeat and (len(self.repeat) != len(self.train) or min(self.repeat) < 1):
            raise ValueError(
                f"`data.repeat` must give a number of at least 1 for each of the "
                f"{len(self.train)} training files, got {list(self.repeat)}"
            )


@dataclass(frozen=True)
class FineTuneConfig:
    """Start from the weights of another potential instead of random ones.

    Attributes
    ----------
    source : str
        Name or folder of that potential; ``from`` in the file.
    method : {"full", "heads"}
        Train all weights, or only the last layers that read energies (and direct forces and
        stress) off the features, which cannot forget much.
    """

    source: str
    method: Literal["full", "heads"] = "full"

    def __post_init__(self) -> None:
        if self.method not in ("full", "heads"):
            raise ValueError(f"`fine_tune.method` must be 'full' or 'heads', got {self.method!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneConfig:
        """Config from the table of a file, where `source` is called ``from``."""
        if "from" not in values:
            raise ValueError("[fine_tune] needs `from`: the name or folder of a potential")
        return build(
            cls,
            {"source" if k == "from" else k: v for k, v in values.items()},
            "fine_tune",
        )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the squared errors: energy per atom, force component, stress component."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 0.0


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
        Frames in a step.
    loss : LossConfig
    frames : {"sampled", "all"}
        With ``model.ecse = "layerwise"``: one drawn frame for each atom, which costs no more than
        a plain model, or all of them, as in every evaluation.
    """

    steps: int
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup_steps: int = 100
    batch_size: int = 1
    loss: LossConfig = field(default_factory=LossConfig)
    frames: Literal["sampled", "all"] = "sampled"

    def __post_init__(self) -> None:
        if self.frames not in ("sampled", "all"):
            raise ValueError(f"`frames` must be 'sampled' or 'all', got {self.frames!r}")
        if self.steps < 1 or self.batch_size < 1 or self.warmup_steps < 0:
            raise ValueError(
                "`steps` and `batch_size` must be at least 1, `warmup_steps` at least 0"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and what surrounds it.

    Attributes
    ----------
    name : {"adam", "soap"}
    betas : tuple of float
    weight_decay : float
        Decoupled.
    precondition_interval : int
        Steps between refreshes of SOAP's eigenbases.
    gradient_clip : float
        Largest norm of the gradient.
    ema_decay : float
        Decay per step of the averaged weights, which are evaluated and saved.
    """

    name: Literal["adam", "soap"] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    precondition_interval: int = 10
    gradient_clip: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.name not in ("adam", "soap"):
            raise ValueError(f"`optimizer.name` must be 'adam' or 'soap', got {self.name!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must lie in [0, 1), got {self.ema_decay}")


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
        In the file, ``architecture`` beside the options says which; "pet" if absent.
    data : DataConfig
    stages : tuple of StageConfig
        Run one after the other.
    optimizer : OptimizerConfig
    augment : bool
        Apply a random rotation or rotary reflection of O(3) to every structure in every step.
    validation_interval : int
        Steps between validations.
    uncertainty : UncertaintyConfig, optional
        Fit an uncertainty model at the end; it changes nothing else.
    fine_tune : FineTuneConfig, optional
        Start from another potential.
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

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a training run needs at least one [[stages]] section")
        if self.uncertainty is not None and not isinstance(self.model, PETConfig):
            raise ValueError(
                "[uncertainty] is for models of the architecture 'pet'; train several models of "
                "another one, whose spread is an uncertainty too"
            )

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
        # files of PET were written before there was a choice
        named = model if architecture == "pet" else {"architecture": architecture} | model
        values = asdict(self) | {"model": named}
        if self.fine_tune is None:  # not in files that were written before there was a choice
            del values["fine_tune"]
        else:
            values["fine_tune"] = {"from": self.fine_tune.source, "method": self.fine_tune.method}
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Config from the tables of a TOML file; unknown names are refused."""
        values = dict(values)
        missing = sorted({"name", "model", "data", "stages"} - set(values))
        if missing:
            raise ValueError(f"the training configuration lacks the section(s) {missing}")
        data = {k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("data").items()}
        stages = tuple(
            build(
                StageConfig,
                s | {"loss": build(LossConfig, s.get("loss", {}), "stages.loss")},
                "stages",
            )
            for s in values.pop("stages")
        )
        uncertainty = values.pop("uncertainty", None)
        if uncertainty is not None:
            uncertainty = build(UncertaintyConfig, uncertainty, "uncertainty")
        fine_tune = values.pop("fine_tune", None)
        if fine_tune is not None:
            fine_tune = FineTuneConfig.from_dict(fine_tune)
        optimizer = dict(values.pop("optimizer", {}))
        model = dict(values.pop("model"))
        if "betas" in optimizer:
            optimizer["betas"] = tuple(optimizer["betas"])
        return build(
            cls,
            values
            | {
                "model": trainable_config(model.pop("architecture", "pet"), model),
                "data": build(DataConfig, data, "data"),
                "stages": stages,
                "optimizer": build(OptimizerConfig, optimizer, "optimizer"),
                "uncertainty": uncertainty,
                "fine_tune": fine_tune,
            },
            "the top level",
        )

    @classmethod
    def from_toml(cls, path: Path | str) -> TrainConfig:
        """Config from a TOML file."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no training file at {path}; name an existing TOML file")
        with path.open("rb") as handle:
            return cls.from_dict(tomllib.load(handle))


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Dataclass from plain values, refusing unknown names with the list of known ones."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown option(s) {unknown} in {where}; known are {sorted(known)}")
    required = {
        f.name
        for f in fields(cls)  # type: ignore[arg-type]
        if f.default is MISSING and f.default_factory is MISSING
    }
    missing = sorted(required - set(values))
    if missing:
        raise ValueError(f"option(s) {missing} are missing in {where}")
    return cls(**values)
