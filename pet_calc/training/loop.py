"""The training loop: stages, validation, checkpoints, exact resumption."""

from __future__ import annotations

import copy
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from pet_calc.errors import CheckpointError, DatasetError, SimulationError
from pet_calc.io.datasets import LabelCensus, LabelledFrame, read_frames
from pet_calc.io.domain import measure_domain
from pet_calc.io.outputs import claim_folder
from pet_calc.io.uncertainty import write_uncertainty
from pet_calc.io.weights import save_model
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.architectures import TrainableConfig, TrainableModel, new_model
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.sampled import SampledPET
from pet_calc.pretrained import load
from pet_calc.training.checkpoint import load_checkpoint, save_checkpoint
from pet_calc.training.config import FineTuneConfig, StageConfig, TrainConfig
from pet_calc.training.data import (
    Batch,
    conditioned,
    fit_composition,
    fit_reference_energies,
    prepare,
    shortest_distances,
    training_batch,
)
from pet_calc.training.ema import start_average, update_average
from pet_calc.training.evaluate import Evaluation, evaluate_frames
from pet_calc.training.losses import direct_loss
from pet_calc.training.losses import loss as loss_of
from pet_calc.training.optimizers import make_optimizer
from pet_calc.training.schedule import learning_rate
from pet_calc.training.uncertainty import calibration_error, fit_uncertainty

CHECKPOINT: Final = "checkpoint.safetensors"
LOG_COLUMNS: Final = (
    "step", "stage", "learning_rate", "loss", "train_forces_rmse",
    "validation_energy_mae", "validation_forces_rmse", "validation_stress_rmse",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """Where a run stands; handed to the caller after every step.

    Attributes
    ----------
    step, total : int
        Steps done and to do, over all stages.
    stage : int
    learning_rate, loss : float
    forces_rmse : float
        Running average on the training batches, in meV/Å.
    validation : Evaluation or None
        Set when this step was validated.
    """

    step: int
    total: int
    stage: int
    learning_rate: float
    loss: float
    forces_rmse: float
    validation: Evaluation | None


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Frames of each split and what was found in their files.

    Attributes
    ----------
    train, validation, test : list of LabelledFrame
    census : dict
        Split to what its files hold.
    epoch : tuple of int
        Indices of `train` that an epoch sees, some several times; each once if empty.
    """

    train: list[LabelledFrame]
    validation: list[LabelledFrame]
    test: list[LabelledFrame]
    census: dict[str, LabelCensus]
    epoch: tuple[int, ...] = ()


def load_data(config: TrainConfig, folder: Path) -> TrainingData:
    """Read all splits of a configuration; relative paths start at `folder`.

    Raises
    ------
    DatasetError
        If a file is missing or empty, or if a label with a positive loss weight is not in the
        training files at all.
    """
    data = config.data
    census: dict[str, LabelCensus] = {}
    if not data.train:
        raise DatasetError("there is nothing to train on: `data.train` names no file")
    train: list[LabelledFrame] = []
    repeats: list[int] = []
    for path, repeat in zip(data.train, data.repeat or (1,) * len(data.train), strict=True):
        frames, found = read_frames([folder / path], data.keys)
        train += frames
        repeats += [repeat] * len(frames)
        census["train"] = census["train"] + found if "train" in census else found
    if data.validation:
        validation, census["validation"] = read_frames(
            [folder / p for p in data.validation], data.keys
        )
    else:
        n = data.validation_frames
        if not 0 < n < len(train):
            raise DatasetError(
                f"`data.validation_frames` must lie between 1 and the {len(train)} training "
                f"frames minus one, got {n}"
            )
        held = set(np.linspace(0, len(train) - 1, n).round().astype(int).tolist())
        validation = [f for k, f in enumerate(train) if k in held]
        kept = [k for k in range(len(train)) if k not in held]
        train, repeats = [train[k] for k in kept], [repeats[k] for k in kept]
    test: list[LabelledFrame] = []
    if data.test:
        test, census["test"] = read_frames([folder / p for p in data.test], data.keys)
    check_labels(census["train"], config.stages)
    order = tuple(k for k, r in enumerate(repeats) for _ in range(r))
    return TrainingData(train, validation, test, census, order)


def check_labels(census: LabelCensus, stages: Sequence[StageConfig]) -> None:
    """Refuse to train on labels that no frame carries."""
    if census.count("energy") + census.count("forces") + census.count("stress") == 0:
        raise DatasetError(
            "the training files hold no label (no energy, forces or stress under any known key); "
            "name the keys in [data.keys]"
        )
    for label in ("energy", "forces", "stress"):
        wanted = any(getattr(s.loss, label) > 0 for s in stages)
        if wanted and census.count(label) == 0:
            raise DatasetError(
                f"the loss asks for {label}, but no training frame carries it; name its key in "
                f"[data.keys], or set its loss weight to 0"
            )


def train(
    config: TrainConfig,
    out: Path,
    data: TrainingData,
    *,
    report: Callable[[Progress], None] | None = None,
    checkpoint_seconds: float = 120.0,
    stop_after: int | None = None,
) -> dict[str, Evaluation] | None:
    """Train a potential, or go on with a run that was interrupted.

    A run resumed from its checkpoint computes the same numbers as one that was not interrupted:
    the order of the data and the augmentation are functions of the seed and the step.

    Parameters
    ----------
    config : TrainConfig
    out : Path
        Folder of the run: ``checkpoint.safetensors``, ``log.csv`` and at the end ``model/`` with
        the averaged weights, ``evaluation.json``, and ``calibration.json`` if uncertainties are
        fitted.
    data : TrainingData
        From `load_data`.
    report : callable, optional
        Receives a `Progress` after every step.
    checkpoint_seconds : float
        Time between checkpoints.
    stop_after : int, optional
        Stop (with a checkpoint) after this many steps over all; for splitting a run.

    Returns
    -------
    dict or None
        Evaluation of the "train", "validation" and "test" split, None if stopped before the end.

    Raises
    ------
    CheckpointError
        If `out` holds a run of another configuration.
    OutputError
        If `out` cannot be written to; tried before any work.
    SimulationError
        If the loss is no longer finite.
    ValueError
        If `checkpoint_seconds` is not a time.
    """
    if not checkpoint_seconds >= 0:
        raise ValueError(f"`checkpoint_seconds` must not be negative, got {checkpoint_seconds}")
    claim_folder(out, ())
    if config.uncertainty and all(f.energy is None for f in data.validation):
        raise DatasetError(
            "[uncertainty] needs energies of validation frames to set its scale, but none has one"
        )
    frames = prepare_all(data.train, config)
    validation = prepare_all(data.validation, config)
    run = Run.start(config, data.train, frames)
    epoch = [frames[k] for k in data.epoch] or frames
    path = out / CHECKPOINT
    if path.exists():
        run.restore(load_checkpoint(path), path)
    truncate_log(out / "log.csv", run.step)

    saved = time.monotonic()
    end = config.total_steps if stop_after is None else min(stop_after, config.total_steps)
    while run.step < end:
        value, rate = run.advance(epoch)
        done = run.step
        evaluation = None
        last_of_stage = done == config.total_steps or config.stage_at(done)[1] == 0
        if done % config.validation_interval == 0 or last_of_stage:
            evaluation = run.validate(validation)
            append_log(out / "log.csv", run.log_row(value, rate, evaluation))
        if report is not None:
            report(
                Progress(
                    done, config.total_steps, run.stage, rate, value, run.forces_rmse, evaluation
                )
            )
        if time.monotonic() - saved > checkpoint_seconds:
            save_checkpoint(path, run.state())
            saved = time.monotonic()
    save_checkpoint(path, run.state())
    if run.step < config.total_steps:
        return None
    model = run.best_model()
    details: dict[str, Any] = {"config": config.to_dict(), "steps": run.step}
    llpr = None
    if config.uncertainty is not None and isinstance(model, PET):
        llpr = fit_uncertainty(model, frames, validation, config.uncertainty, config.seed)
        details |= write_uncertainty(out / "model", {model.energy_head: llpr})
    save_model(
        out / "model",
        model,
        training=details,
        domain=measure_domain((f.atoms for f in data.train), config.model.cutoff),
    )
    test = prepare_all(data.test, config)
    if llpr is not None and isinstance(model, PET):
        splits = {"validation": validation} | ({"test": test} if data.test else {})
        calibrations = {
            split: asdict(calibration_error(model, llpr, frames))
            for split, frames in splits.items()
            if any(bool(torch.isfinite(f.energy).any()) for f in frames)
        }
        (out / "calibration.json").write_text(json.dumps(calibrations, indent=1) + "\n")
    table = {
        "train": evaluate_frames(model, frames),
        "validation": evaluate_frames(model, validation),
    }
    if test:
        table["test"] = evaluate_frames(model, test)
    (out / "evaluation.json").write_text(
        json.dumps({split: asdict(e) for split, e in table.items()}, indent=1) + "\n"
    )
    return table


def prepare_all(frames: Sequence[LabelledFrame], config: TrainConfig) -> list[Batch]:
    """Frames as the model of a configuration needs them."""
    model = config.model
    conditions = isinstance(model, PETConfig) and model.system_conditioning
    return [prepare(f, model.cutoff, conditions=conditions) for f in frames]


def initial_model(config: FineTuneConfig, wanted: TrainableConfig) -> TrainableModel:
    """The potential that a fine-tuning starts from, with the weights to be trained unfrozen.

    Its reference energies are aligned with the new data as the first stage begins; its energy
    scale and the onset of its repulsion stay.

    Raises
    ------
    ValueError
        If it is not of the architecture, elements and sizes that [model] asks for.
    """
    potential = load(config.source)
    model = potential.model
    if not isinstance(model, PET | Crystalformer) or model.config != wanted:
        raise ValueError(
            f"[model] must be the configuration of the potential that [fine_tune] starts from; "
            f"copy it from the train.toml or config.json of {potential.name}"
        )
    model.requires_grad_(config.method == "full")
    if config.method == "heads":
        for last in model.last_layers:
            last.requires_grad_(True)
    return model.train()


def constants(model: TrainableModel) -> tuple[Tensor, Tensor]:
    """Reference energies (n_species,) and scale of the energy that is trained, as views."""
    if isinstance(model, PET):
        return model.head_constants()
    return model.reference_energies, model.energy_scale


def scale_direct_heads(model: PET, frames: Sequence[LabelledFrame]) -> None:
    """Set the scales of direct forces and stress to the sizes of the labels."""
    forces = [f.forces.reshape(-1) for f in frames if f.forces is not None]
    if forces and model.config.direct_forces:
        model.direct_force_scale.fill_(float(np.sqrt(np.square(np.concatenate(forces)).mean())))
    virials = [
        f.stress * f.atoms.cell.volume / len(f.atoms) for f in frames if f.stress is not None
    ]
    if virials and model.config.direct_stress:
        model.direct_stress_scale.fill_(float(np.sqrt(np.square(virials).mean())))


class Run:
    """The mutable state of a training run: weights, optimizer, average, best weights, step.

    Parameters
    ----------
    config : TrainConfig
    model : PET or Crystalformer
        With reference energies and energy scale set.
    """

    def __init__(self, config: TrainConfig, model: TrainableModel) -> None:
        self.config = config
        self.step = 0
        self.forces_rmse = float("nan")
        self.best_loss = float("inf")
        self.best: dict[str, Tensor] | None = None
        self.model = model
        self.begin_stage(0)

    @classmethod
    def start(
        cls, config: TrainConfig, frames: Sequence[LabelledFrame], prepared: Sequence[Batch]
    ) -> Run:
        """A fresh run: seeded weights; the rest of the model from the training frames.

        Reference energies come from the total energies, the scales of energy and direct forces
        from the forces, that of the direct stress from the virials, the onset of the repulsion from
        the shortest distances.
        """
        if config.fine_tune is not None:
            return cls(config, initial_model(config.fine_tune, config.model))
        # the forked generator leaves the caller's random state as it was
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = new_model(config.model, torch.float32)
            with torch.no_grad():
                for last in model.last_layers:
                    last.weight.mul_(0.3)
                    last.bias.zero_()
            references, scale = constants(model)
            references.copy_(fit_reference_energies(frames, config.model.elements))
            forces = [f.forces.reshape(-1) for f in frames if f.forces is not None]
            if forces:
                scale.fill_(float(np.sqrt(np.square(np.concatenate(forces)).mean())))
            if isinstance(model, PET):
                scale_direct_heads(model, frames)
            if model.repulsion is not None:
                model.repulsion.onset.copy_(shortest_distances(prepared, config.model.elements))
            if isinstance(model, Crystalformer):
                some = Batch.concatenate(prepared[:: max(1, len(prepared) // 32)])
                model.freeze_widths(some.system, some.edges)
            return cls(config, model)

    def begin_stage(self, stage: int) -> None:
        """Set up optimizer and average of a stage."""
        self.stage = stage
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(trained, self.config.optimizer)
        self.average = start_average(self.model)
        self.best_loss, self.best = float("inf"), None

    def advance(self, frames: Sequence[Batch]) -> tuple[float, float]:
        """One optimizer step; returns the loss and the learning rate."""
        stage_index, k = self.config.stage_at(self.step)
        if stage_index != self.stage:
            self.model.load_state_dict(self.best or self.average, strict=False)
            self.begin_stage(stage_index)
        if k == 0:
            # every frame once, however often an epoch sees it
            self.align_energies(list(dict.fromkeys(frames)))
        stage = self.config.stages[stage_index]
        rate = learning_rate(stage, k)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = training_batch(
            frames, self.step, stage.batch_size, self.config.seed, augment=self.config.augment
        )
        self.optimizer.zero_grad()
        results = evaluate(
            self.seen(stage, batch),
            batch.system,
            batch.edges,
            stress=stage.loss.stress > 0,
            create_graph=True,
        )
        value = loss_of(results, batch, stage.loss)
        if isinstance(self.model, PET) and self.model.direct:
            value = value + direct_loss(self.model, batch, stage.loss)
        if not torch.isfinite(value):
            raise SimulationError(
                f"the training loss is {value.item()} at step {self.step}; lower the learning rate "
                f"or check the labels (the last checkpoint is intact)"
            )
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.gradient_clip)
        self.optimizer.step()
        update_average(self.average, self.model, k, self.config.optimizer.ema_decay)
        self.track(results, batch, k)
        self.step += 1
        return float(value.detach()), rate

    def seen(self, stage: StageConfig, batch: Batch) -> EnergyModel:
        """The model as a step sees it: with one frame per atom where the stage draws them."""
        if (
            not isinstance(self.model, PET)
            or self.model.config.ecse == "none"
            or stage.frames == "all"
        ):
            return conditioned(self.model, batch)
        generator = np.random.default_rng((self.config.seed, 3, self.step))
        draw = torch.from_numpy(generator.random(batch.system.n_atoms))
        return SampledPET(self.model, draw, batch.conditions)

    def align_energies(self, frames: Sequence[Batch]) -> None:
        """Shift the reference energies by the model's mean error, by least squares.

        Done as a stage begins: an offset left to the optimizer costs it thousands of steps, or
        drowns the forces.
        """
        labelled = [f for f in frames if bool(torch.isfinite(f.energy).all())]
        if not labelled:
            return
        errors = [
            f.energy
            - evaluate(
                conditioned(self.model, f), f.system, f.edges, forces=False, stress=False
            ).energy
            for f in labelled
        ]
        shift = fit_composition(
            [f.system.numbers.numpy() for f in labelled],
            torch.cat(errors).numpy(),
            self.config.model.elements,
        )
        constants(self.model)[0].add_(shift)

    def track(self, results: Results, batch: Batch, k: int) -> None:
        """Update the running force error."""
        assert results.forces is not None
        error = (results.forces.detach() - batch.forces).square().nanmean().sqrt().item() * 1e3
        self.forces_rmse = error if k == 0 else 0.98 * self.forces_rmse + 0.02 * error

    def validate(self, frames: Sequence[Batch]) -> Evaluation:
        """Errors of the averaged weights; keeps them if they are the best of the stage."""
        stage = self.config.stages[self.stage]
        evaluation = evaluate_frames(self.averaged(self.average), frames)
        w = stage.loss
        terms = (
            (w.energy, evaluation.energy),
            (w.forces, evaluation.forces),
            (w.stress, evaluation.stress),
        )
        total = sum(weight * e.rmse**2 for weight, e in terms if weight > 0 and e.count)
        if total < self.best_loss:
            self.best_loss = total
            self.best = {name: t.clone() for name, t in self.average.items()}
        return evaluation

    def averaged(self, weights: dict[str, Tensor]) -> TrainableModel:
        """A frozen copy of the potential with other weights."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(weights, strict=False)
        return model.requires_grad_(False)

    def best_model(self) -> TrainableModel:
        """A frozen copy of the potential with the best averaged weights."""
        return self.averaged(self.best or self.average)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "stage": self.stage,
            "forces_rmse": self.forces_rmse,
            "best_loss": self.best_loss,
            "best": self.best,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint of the same configuration."""
        # through the config class, which fills in options that are younger than the checkpoint
        saved, wanted = (
            TrainConfig.from_dict(json.loads(json.dumps(c))).to_dict()
            for c in (state["config"], self.config.to_dict())
        )
        for found in (saved, wanted):  # what is fitted at the end may change until then
            found.pop("uncertainty", None)
        if saved != wanted:
            changed = sorted(k for k in wanted if saved.get(k) != wanted[k])
            raise CheckpointError(
                f"{path} belongs to another configuration (different: {changed}); choose another "
                f"output folder, or delete it to start anew"
            )
        self.begin_stage(state["stage"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step = state["step"]
        self.forces_rmse = state["forces_rmse"]
        self.best_loss, self.best = state["best_loss"], state["best"]

    def log_row(self, value: float, rate: float, evaluation: Evaluation) -> list[Any]:
        """Values of `LOG_COLUMNS`; errors in meV, Å."""
        return [
            self.step, self.stage, rate, value, self.forces_rmse,
            evaluation.energy.mae, evaluation.forces.rmse, evaluation.stress.rmse,
        ]  # fmt: skip


def append_log(path: Path, row: list[Any]) -> None:
    """Append a row to the CSV log, with the header on a new file."""
    new = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.writer(handle)
        if new:
            writer.writerow(LOG_COLUMNS)
        writer.writerow(row)


def truncate_log(path: Path, step: int) -> None:
    """Drop rows beyond `step`: they were written after the checkpoint that is resumed from."""
    if not path.exists():
        return
    with path.open(newline="") as handle:
        header, *rows = csv.reader(handle)
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header, *(r for r in rows if int(r[0]) <= step)])
