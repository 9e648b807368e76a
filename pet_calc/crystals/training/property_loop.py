"""Training of property models: targets of crystals, cached graphs, averaged weights.

Targets are standardized and learned together; each crystal contributes the ones it has. Graphs
are built once and kept in memory; a batch holds graphs of similar size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from pet_calc.crystals.io.property_weights import save_property_model
from pet_calc.crystals.models import PropertyEnsemble, PropertyModel
from pet_calc.crystals.training.property_config import PropertyTraining
from pet_calc.crystals.training.property_data import (
    CrystalSet,
    batches,
    crystal_set,
    gather,
    require_potential,
    sample,
    select,
    standardize,
    with_energies,
)
from pet_calc.crystals.training.property_network import (
    errors_of,
    load_source,
    loss_of,
    new_network,
    normalizations,
    predict_all,
    refresh_statistics,
    shared_targets,
)
from pet_calc.crystals.training.property_uncertainty import (
    answers,
    errors_and_deviations,
    fit_distances,
    fit_potential_weight,
    fit_uncertainty,
    fit_volumes,
)
from pet_calc.errors import DatasetError
from pet_calc.io.data.crystals import LabeledCrystal, read_crystals
from pet_calc.io.runs.outputs import claim_folder
from pet_calc.training.core.checkpoint import (
    CHECKPOINT,
    CheckpointTimer,
    resumed_state,
    save_checkpoint,
)
from pet_calc.training.core.figures import learning_figure, reliability_figure, write_figure
from pet_calc.training.core.log import LOG, append_log, truncate_log
from pet_calc.training.core.optimizers import take_step
from pet_calc.training.core.weight_average import start_average, update_mean

LOG_COLUMNS: Final = ("epoch", "loss", "seconds")
#: Some thousands of crystals determine means and covariances.
ENOUGH: Final = 5000


@dataclass
class EpochReport:
    """What is known after an epoch: its number, loss, seconds and errors of validation."""

    epoch: int
    loss: float
    seconds: float
    validation: dict[str, float] = field(default_factory=dict)


def train_property(
    config: PropertyTraining,
    out: Path,
    data_folder: Path,
    *,
    report: Callable[[EpochReport], None] = lambda r: None,
    on_graph: Callable[[], None] = lambda: None,
    checkpoint_seconds: float = 120.0,
    stop_after: int | None = None,
) -> dict[str, dict[str, float]] | None:
    """Train a property model in a folder; called again, it goes on after the last epoch.

    Parameters
    ----------
    config : PropertyTraining
    out : Path
        Receives ``model/``, ``log.csv``, ``evaluation.json``, ``learning.png``,
        ``reliability.png`` and the checkpoint.
    data_folder : Path
        Where relative paths of data start.
    report, on_graph : callable
        Called after each epoch, and after each graph that is built.
    checkpoint_seconds : float
        Least time between checkpoints.
    stop_after : int, optional
        Stop with a checkpoint after so many epochs over all members.

    Returns
    -------
    dict or None
        Errors per split (those of training on a sample of 5,000); None if stopped before the end.

    Raises
    ------
    CheckpointError
        If `out` holds a run of another configuration.
    DatasetError
        If there are too few crystals, or the potential of the model lacks an element of theirs.
    SimulationError
        If the loss is no longer finite.
    """
    timer = CheckpointTimer(checkpoint_seconds)
    crystals = read_splits(config, data_folder)
    source = load_source(config.fine_tune) if config.fine_tune is not None else None
    numbers = {int(z) for c in crystals["train"] for z in set(c.atoms.numbers.tolist())}
    elements = source.config.elements if source is not None else tuple(sorted(numbers))
    # crystals of elements that were never seen cannot be judged
    covered = {
        s: [c for c in found if set(c.atoms.numbers.tolist()) <= set(elements)]
        for s, found in crystals.items()
    }
    networks = [new_network(config, k, elements, source) for k in range(config.members)]
    first = networks[0].config
    require_potential(first)
    sets = {s: crystal_set(c, networks[0], on_graph) for s, c in covered.items() if c}
    claim_folder(out, ())
    kept = {k for k, _ in shared_targets(first, source.config)} if source else set()
    for network in networks:
        standardize(network, sets["train"].targets, kept)
    run = PropertyRun(config, networks, sets, out)
    end = config.members * config.schedule.epochs
    end = end if stop_after is None else min(stop_after, end)
    while run.epoch < end:
        report(run.advance())
        if run.epoch == end or timer.due():
            save_checkpoint(out / CHECKPOINT, run.state())
    if run.epoch < config.members * config.schedule.epochs:
        return None
    model, measured = fitted_ensemble(config, networks, sets, covered)
    return save(config, out, model, measured, {s: len(c) for s, c in covered.items()})


def read_splits(config: PropertyTraining, folder: Path) -> dict[str, list[LabeledCrystal]]:
    """The crystals of each split."""
    names = [t.name for t in config.targets]
    found = {
        split: read_crystals([folder / f for f in files], names) if files else []
        for split, files in asdict(config.data).items()
    }
    if len(found["train"]) < 2 or not found["validation"]:
        raise DatasetError("a property model needs two training crystals and one for validation")
    return found


class PropertyRun:
    """The state of a training: networks that are trained one after the other, epoch by epoch.

    Parameters
    ----------
    config : PropertyTraining
    networks : sequence of PropertyModel
        Standardized; they end with their averaged weights.
    sets : mapping of str to CrystalSet
        "train" and "validation".
    out : Path
        Folder of the run, from whose checkpoint it goes on.
    """

    def __init__(
        self,
        config: PropertyTraining,
        networks: Sequence[PropertyModel],
        sets: Mapping[str, CrystalSet],
        out: Path,
    ) -> None:
        self.config, self.networks, self.out = config, networks, out
        self.train, self.validation = sets["train"], sets["validation"]
        self.epoch = 0  # over all members
        self.begin(0)
        if state := resumed_state(out / CHECKPOINT, config.to_dict()):
            self.restore(state)
        truncate_log(out / LOG, LOG_COLUMNS, self.epoch)

    def begin(self, member: int) -> None:
        """Set up optimizer and average of a member."""
        self.member, self.model = member, self.networks[member]
        schedule = self.config.schedule
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": schedule.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate,
            betas=(0.9, 0.98),
        )
        self.average, self.averaged = start_average(self.model), 0

    def advance(self) -> EpochReport:
        """Train one epoch, validate, and write a row of the log."""
        schedule = self.config.schedule
        member, epoch = divmod(self.epoch, schedule.epochs)
        if member != self.member:
            self.begin(member)
        began = time.monotonic()
        losses = self.train_epoch(epoch)
        seconds = time.monotonic() - began
        self.epoch += 1
        targets = self.validation.targets
        errors = errors_of(self.config.targets, predict_all(self.model, self.validation), targets)
        if epoch + 1 == schedule.epochs:
            self.model.load_state_dict(self.average, strict=False)
        report = EpochReport(self.epoch, float(np.mean(losses)), seconds, errors)
        numbers = (report.epoch, round(report.loss, 5), round(seconds, 1))
        rounded = {name: round(e, 5) for name, e in errors.items()}
        append_log(self.out / LOG, dict(zip(LOG_COLUMNS, numbers, strict=True)) | rounded)
        return report

    def train_epoch(self, epoch: int) -> list[float]:
        """The steps of an epoch of the current member; their losses."""
        config, schedule, model = self.config, self.config.schedule, self.model
        frozen = epoch - (schedule.epochs - schedule.frozen_epochs)
        if frozen == 0:
            some = select(self.train, sample(len(self.train.graphs), ENOUGH, config.seed))
            refresh_statistics(model, some, schedule.batch_size)
        model.train()
        if frozen >= 0:
            for norm in normalizations(model):
                norm.eval()
        generator = np.random.default_rng((config.seed + self.member, epoch))
        drawn = batches(self.train, schedule.batch_size, generator, schedule.full_edges)
        losses = []
        for k, rows in enumerate(drawn):
            self.optimizer.zero_grad()
            value = loss_of(model, *gather(self.train, rows), schedule.loss)
            value.backward()
            losses.append(float(value.detach()))
            take_step(
                self.optimizer,
                model.parameters(),
                losses[-1],
                rate=schedule.rate_at(epoch + k / len(drawn), len(drawn)),
                clip=schedule.gradient_clip,
                when=f"in epoch {self.epoch}",
            )
            if epoch >= schedule.epochs - schedule.average_epochs:
                self.averaged += 1
                update_mean(self.average, model, self.averaged)
        return losses

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "config": self.config.to_dict(),
            "epoch": self.epoch,
            "member": self.member,
            "networks": [n.state_dict() for n in self.networks[: self.member + 1]],
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "averaged": self.averaged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same configuration."""
        self.epoch = state["epoch"]
        self.begin(state["member"])
        for network, weights in zip(self.networks, state["networks"], strict=False):
            network.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.averaged = state["average"], state["averaged"]


def fitted_ensemble(
    config: PropertyTraining,
    networks: Sequence[PropertyModel],
    sets: Mapping[str, CrystalSet],
    crystals: Mapping[str, Sequence[LabeledCrystal]],
) -> tuple[PropertyEnsemble, dict[str, CrystalSet]]:
    """The model of all networks with its uncertainty and domain, and the sets to measure it on."""
    schedule = config.schedule
    rows = sample(len(crystals["train"]), ENOUGH, config.seed)
    some = select(sets["train"], rows)
    for network in networks:
        if not schedule.frozen_epochs:
            refresh_statistics(network, some, schedule.batch_size)
        fit_distances(network, some)
    model = PropertyEnsemble.of(networks).requires_grad_(False)
    chosen = {**crystals, "train": [crystals["train"][r] for r in rows]}
    measured = {
        s: with_energies(d, chosen[s], model.config) for s, d in {**sets, "train": some}.items()
    }
    fit_potential_weight(model, measured["validation"])
    fit_uncertainty(model, measured["validation"])
    fit_volumes(model, crystals["train"])
    return model, measured


def save(
    config: PropertyTraining,
    out: Path,
    model: PropertyEnsemble,
    sets: Mapping[str, CrystalSet],
    counts: Mapping[str, int],
) -> dict[str, dict[str, float]]:
    """Write the model and its errors, which are returned."""
    table = {s: errors_of(config.targets, answers(model, d)[0], d.targets) for s, d in sets.items()}
    details = {
        "name": config.name,
        "seed": config.seed,
        "schedule": asdict(config.schedule),
        "crystals": dict(counts),
    }
    save_property_model(out / "model", model, details)
    (out / "evaluation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    panels = {"loss": {"loss": "training"}} | {f"error, {n}": {n: n} for n in table["validation"]}
    write_figure(learning_figure(out / LOG, panels, title=config.name), out / "learning.png")
    drawn = errors_and_deviations(model, sets["validation"])
    if drawn:
        figure = reliability_figure(drawn, unit="as learnt", title=f"{config.name}, validation")
        write_figure(figure, out / "reliability.png")
    return table
