"""The training loop: stages, validation, checkpoints, exact resumption."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pet_calc.errors import DatasetError
from pet_calc.io.domain import measure_domain
from pet_calc.io.outputs import claim_folder
from pet_calc.io.uncertainty import write_uncertainty
from pet_calc.io.weights import DTYPES, save_model
from pet_calc.models.architectures import TrainableModel
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR
from pet_calc.training.checkpoint import load_checkpoint, save_checkpoint
from pet_calc.training.config import TrainConfig
from pet_calc.training.data import Batch
from pet_calc.training.evaluate import Evaluation, evaluate_frames
from pet_calc.training.forgetting import before_and_after, write_comparison
from pet_calc.training.log import append_log, truncate_log
from pet_calc.training.run import Run
from pet_calc.training.splits import TrainingData, load_data, prepare_all
from pet_calc.training.starting import source_model, with_one_zero
from pet_calc.training.uncertainty import calibration_error, fit_uncertainty

__all__ = ["CHECKPOINT", "Progress", "Run", "TrainingData", "load_data", "prepare_all", "train"]

CHECKPOINT: Final = "checkpoint.safetensors"
COMPARISON: Final = "fine_tuning.csv"


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
        the averaged weights, ``evaluation.json``, ``calibration.json`` if uncertainties are
        fitted, and ``fine_tuning.csv`` if another potential was the start.
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
        Evaluation of each split (`TrainingData.measured`), None if stopped before the end.

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
    measured = {name: prepare_all(split, config) for name, split in data.measured.items()}
    if config.fine_tune is not None and data.order.replay:
        source = source_model(config.fine_tune.source, config.model, config.dtype)
        measured["train"] = with_one_zero(source, measured["train"], data.order)
    frames, validation = measured["train"], measured["validation"]
    run = Run.start(config, data.train, frames)
    path = out / CHECKPOINT
    if path.exists():
        run.restore(load_checkpoint(path), path)
    truncate_log(out / "log.csv", run.step)

    saved = time.monotonic()
    end = config.total_steps if stop_after is None else min(stop_after, config.total_steps)
    while run.step < end:
        value, rate = run.advance(frames, data.order)
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
    return finish(config, out, data, measured, run)


def finish(
    config: TrainConfig, out: Path, data: TrainingData, measured: dict[str, list[Batch]], run: Run
) -> dict[str, Evaluation]:
    """Save the best weights, and measure them on every split."""
    model = run.best_model()
    details: dict[str, Any] = {"config": config.to_dict(), "steps": run.step}
    if config.uncertainty is not None and isinstance(model, PET):
        llpr = fit_uncertainty(
            model, measured["train"], measured["validation"], config.uncertainty, config.seed
        )
        details |= write_uncertainty(out / "model", {model.energy_head: llpr})
        write_calibration(out / "calibration.json", model, llpr, measured)
    save_model(
        out / "model",
        model,
        training=details,
        domain=measure_domain((f.atoms for f in data.train), config.model.cutoff),
        dtype=DTYPES[config.dtype],
    )
    if config.fine_tune is not None:
        write_tuning(config, out / COMPARISON, model, measured)
    table = {name: evaluate_frames(model, frames) for name, frames in measured.items()}
    (out / "evaluation.json").write_text(
        json.dumps({split: asdict(e) for split, e in table.items()}, indent=1) + "\n"
    )
    return table


def write_calibration(path: Path, model: PET, llpr: LLPR, measured: dict[str, list[Batch]]) -> None:
    """Compare uncertainties and errors of energies on the frames that were not trained on."""
    calibrations = {
        split: asdict(calibration_error(model, llpr, frames))
        for split, frames in measured.items()
        if split != "train" and any(bool(torch.isfinite(f.energy).any()) for f in frames)
    }
    path.write_text(json.dumps(calibrations, indent=1) + "\n")


def write_tuning(
    config: TrainConfig, path: Path, model: TrainableModel, measured: dict[str, list[Batch]]
) -> None:
    """Compare a fine-tuned potential with what it started from, on new and on old data."""
    assert config.fine_tune is not None
    before = source_model(config.fine_tune.source, config.model, config.dtype)
    sets = {name: frames for name, frames in measured.items() if name.endswith("test")}
    write_comparison(
        path, before_and_after(before, model, sets or {"validation": measured["validation"]})
    )
