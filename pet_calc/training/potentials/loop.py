"""The training loop: stages, validation, checkpoints, exact resumption."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from ase.data import chemical_symbols

from pet_calc.errors import DatasetError
from pet_calc.io.models.domain import measure_domain
from pet_calc.io.models.uncertainty import write_uncertainty
from pet_calc.io.models.weights import DTYPES, save_model
from pet_calc.io.runs.outputs import claim_folder
from pet_calc.models.architectures import TrainableModel
from pet_calc.models.dimers import dimers, make_repulsive
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR
from pet_calc.training.core.checkpoint import (
    CHECKPOINT,
    CheckpointTimer,
    resumed_state,
    save_checkpoint,
)
from pet_calc.training.core.figures import learning_figure, reliability_figure, write_figure
from pet_calc.training.core.log import LOG, append_log, truncate_log
from pet_calc.training.core.parallel import Team, team_of_processes
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import Batch
from pet_calc.training.potentials.dimer_figure import dimer_figure
from pet_calc.training.potentials.evaluate import Evaluation, evaluate_frames
from pet_calc.training.potentials.forgetting import before_and_after, write_comparison
from pet_calc.training.potentials.frame_order import Order
from pet_calc.training.potentials.initial_model import source_model, with_one_zero
from pet_calc.training.potentials.run import LOG_COLUMNS, Run
from pet_calc.training.potentials.splits import (
    TrainingData,
    by_level,
    load_data,
    prepare_all,
    split_by_level,
)
from pet_calc.training.potentials.uncertainty import compare, errors_and_sigmas, fit_uncertainty

__all__ = ["CHECKPOINT", "Progress", "Run", "TrainingData", "load_data", "prepare_all", "train"]

COMPARISON: Final = "fine_tuning.csv"
#: Panels of the learning curve: label of the axis to column of the log and its legend.
PANELS: Final = {
    "force RMSE, meV/Å": {
        "train_forces_rmse": "training, running", "validation_forces_rmse": "validation"
    },
    "energy MAE, meV/atom": {"validation_energy_mae": "validation"},
}  # fmt: skip


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
    the order of the data and the augmentation are functions of the seed and the step. Processes
    that ``torchrun`` starts share each step (`pet_calc.training.core.parallel`).

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
    timer = CheckpointTimer(checkpoint_seconds)
    if config.uncertainty and all(f.energy is None for f in data.validation):
        raise DatasetError(
            "[uncertainty] needs energies of validation frames to set its scale, but none has one"
        )
    team = team_of_processes()
    if team.leads:
        claim_folder(out, ())
    team.wait()
    measured = measured_frames(config, data)
    run = Run.start(config, data.train, measured["train"], team)
    path = out / CHECKPOINT
    # what is fitted at the end may change until then
    if state := resumed_state(path, config.to_dict(), changeable=("uncertainty",)):
        run.restore(state, path)
    team.wait()
    if team.leads:
        truncate_log(out / LOG, LOG_COLUMNS, run.step)
    end = config.total_steps if stop_after is None else min(stop_after, config.total_steps)
    take_steps(run, measured, data.order, out, end, report, timer)
    table = None
    if run.step == config.total_steps:
        model = run.best_model()
        attracting = floor(model)
        if team.leads:
            save(config, out, data, measured, run, model, attracting)
        table = measure(out, measured, model, team)
    team.wait()
    return table


def measured_frames(config: TrainConfig, data: TrainingData) -> dict[str, list[Batch]]:
    """The frames of each split, ready for the model; those trained on with one zero of energy."""
    measured = {name: prepare_all(split, config) for name, split in data.measured.items()}
    if config.fine_tune is not None and data.order.replay:
        source = source_model(config.fine_tune.source, config.model, config.dtype)
        measured["train"] = with_one_zero(source, measured["train"], data.order)
    return measured


def take_steps(
    run: Run,
    measured: Mapping[str, Sequence[Batch]],
    order: Order,
    out: Path,
    end: int,
    report: Callable[[Progress], None] | None,
    timer: CheckpointTimer,
) -> None:
    """Steps up to `end`, with validations and checkpoints."""
    config, leads = run.config, run.team.leads
    while run.step < end:
        value, rate = run.advance(measured["train"], order)
        done = run.step
        evaluation = None
        last_of_stage = done == config.total_steps or config.stage_at(done)[1] == 0
        if done % config.validation_interval == 0 or last_of_stage:
            evaluation = run.validate(measured["validation"])
            if leads:
                append_log(out / LOG, run.log_row(value, rate, evaluation))
        if report is not None:
            report(
                Progress(
                    done, config.total_steps, run.stage, rate, value, run.forces_rmse, evaluation
                )
            )
        if leads and timer.due():
            save_checkpoint(out / CHECKPOINT, run.state())
    if leads:
        save_checkpoint(out / CHECKPOINT, run.state())
        if run.step == config.total_steps:
            figure = learning_figure(out / LOG, PANELS, title=config.name)
            write_figure(figure, out / "learning.png")


def save(
    config: TrainConfig,
    out: Path,
    data: TrainingData,
    measured: Mapping[str, Sequence[Batch]],
    run: Run,
    model: TrainableModel,
    attracting: Mapping[str, float],
) -> None:
    """Write the potential with the best weights, and what belongs to it."""
    details: dict[str, Any] = {"config": config.to_dict(), "steps": run.step}
    if model.repulsion is not None:
        details["attracting_pairs"] = dict(attracting)
        pairs = list(dimers(model, torch.linspace(0.3, 1.6, 66)))
        write_figure(dimer_figure(pairs, title=config.name), out / "dimers.png")
    if config.uncertainty is not None and isinstance(model, PET):
        fitted = {}
        for head, held_out in by_level(model, measured["validation"]):
            assert isinstance(head, PET)
            fitted[head.energy_head] = fit_uncertainty(
                head, measured["train"], held_out, config.uncertainty, config.seed
            )
        details |= write_uncertainty(out / "model", fitted)
        write_calibration(out, config.name, model, fitted, measured)
    save_model(
        out / "model",
        model,
        training=details,
        domain=measure_domain((f.atoms for f in data.trained_on), config.model.cutoff),
        dtype=DTYPES[config.dtype],
    )
    if config.fine_tune is not None:
        write_tuning(config, out / COMPARISON, model, split_by_level(model, measured))


def floor(model: TrainableModel) -> dict[str, float]:
    """Let no pair of atoms alone attract at short distance, where the model has a repulsion.

    Returns
    -------
    dict
        Pairs that attract still, such as "Si-Si", and how strongly in eV/Å.
    """
    if model.repulsion is None:
        return {}
    left = make_repulsive(model, model.repulsion)
    return {"-".join(chemical_symbols[z] for z in d.numbers): d.attraction() for d in left}


def measure(
    out: Path, measured: Mapping[str, Sequence[Batch]], model: TrainableModel, team: Team
) -> dict[str, Evaluation]:
    """Errors of a model on every split."""
    table = {
        name: evaluate_frames(model, frames, team)
        for name, frames in split_by_level(model, measured).items()
    }
    if team.leads:
        content = json.dumps({split: asdict(e) for split, e in table.items()}, indent=1) + "\n"
        (out / "evaluation.json").write_text(content)
    return table


def write_calibration(
    out: Path, title: str, model: PET, fitted: Mapping[str, LLPR],
    measured: Mapping[str, Sequence[Batch]],
) -> None:  # fmt: skip
    """Compare uncertainties and errors of energies on the frames that were not trained on."""
    calibrations, drawn = {}, {}
    for split, frames in measured.items():
        for head, part in by_level(model, frames):
            assert isinstance(head, PET)
            labeled = any(bool(torch.isfinite(f.energy).any()) for f in part)
            if split == "train" or not labeled or head.energy_head not in fitted:
                continue
            (name,) = split_by_level(head, {split: part})
            errors, sigmas, counts = errors_and_sigmas(head, fitted[head.energy_head], part)
            calibrations[name] = asdict(compare(errors, sigmas, counts))
            drawn[name] = (1e3 * errors / counts).numpy(), (1e3 * sigmas / counts).numpy()
    (out / "calibration.json").write_text(json.dumps(calibrations, indent=1) + "\n")
    if drawn:
        write_figure(reliability_figure(drawn, title=title), out / "reliability.png")


def write_tuning(
    config: TrainConfig, path: Path, model: TrainableModel, sets: Mapping[str, Sequence[Batch]]
) -> None:
    """Compare a fine-tuned potential with what it started from, on new and on old data."""
    assert config.fine_tune is not None
    before = source_model(config.fine_tune.source, config.model, config.dtype)
    for kind in ("test", "validation"):  # those held out, where there is no test
        chosen = {k: f for k, f in sets.items() if k.split(",")[0].endswith(kind)}
        if chosen:
            break
    write_comparison(path, before_and_after(before, model, chosen))
