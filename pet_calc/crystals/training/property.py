"""Training of property models: targets of crystals, cached graphs, averaged weights.

Targets are standardized and learned together; each crystal contributes the ones it has. Graphs
are built once and kept in memory; a batch holds graphs of similar size.
"""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.crystals.io.property_weights import load_property_model, save_property_model
from pet_calc.crystals.models import (
    CrystalGraph,
    PotentialTerm,
    PropertyConfig,
    PropertyEnsemble,
    PropertyModel,
    Target,
)
from pet_calc.crystals.models.backbone import WeightedBatchNorm
from pet_calc.crystals.models.heads import LARGEST_LOG
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
from pet_calc.crystals.training.property_uncertainty import (
    answers,
    errors_and_deviations,
    fit_distances,
    fit_potential_weight,
    fit_uncertainty,
    fit_volumes,
)
from pet_calc.errors import CheckpointError, DatasetError, SimulationError
from pet_calc.io.data.crystals import read_crystals
from pet_calc.pretrained import find_property_model
from pet_calc.training.core.checkpoint import load_checkpoint, save_checkpoint
from pet_calc.training.core.figures import reliability_figure, write_figure

T = TypeVar("T")
LOSSES: Final = ("l1", "mse")
#: Weight of the loss of a learnt scale b beside that of its value.
SCALE_WEIGHT: Final = 0.2
STATE = "checkpoint.pt"


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
        return tuple(build(Target, t) for t in self.property.get("targets", ()))

    @classmethod
    def from_toml(cls, path: Path) -> PropertyTraining:
        """From a TOML file; unknown names are refused."""
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if missing := sorted({"name", "property", "data", "schedule"} - set(values)):
            raise ValueError(f"the training configuration lacks the section(s) {missing}")
        data = {k: tuple(v) for k, v in values["data"].items()}
        settings = values | {
            "data": build(PropertyData, data),
            "schedule": build(PropertySchedule, values["schedule"]),
        }
        if "fine_tune" in settings:
            source = settings["fine_tune"]
            if not isinstance(source, dict) or set(source) != {"from"}:
                raise ValueError(
                    f"the table [fine_tune] of a property model has one option, `from`, got "
                    f"{source!r}"
                )
            settings["fine_tune"] = source["from"]
        return build(cls, settings)


def build(cls: type[T], values: dict[str, Any]) -> T:
    """A dataclass from a table; `ValueError` for unknown or missing names."""
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - names):
        raise ValueError(f"unknown option(s) {unknown} for {cls.__name__}; known: {sorted(names)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"the options of {cls.__name__} are incomplete: {error}") from error


def is_property_config(path: Path) -> bool:
    """Whether a TOML file describes the training of a property model."""
    try:
        return "property" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is no readable TOML file: {error}") from error


def loss_of(model: PropertyModel, graph: CrystalGraph, targets: Tensor, kind: str) -> Tensor:
    r"""Weighted sum over targets of the mean loss of the crystals that have them.

    Where the model learns the scales b of its errors e, :math:`0.2 \langle |e| / b + \ln b\rangle`
    is added, which does not change what the values learn but through the features.
    """
    n = len(model.config.targets)
    out = model(graph)
    logarithms = out[:, n:].clamp(-LARGEST_LOG, LARGEST_LOG)
    wanted = ((targets - model.target_mean) / model.target_scale).to(out.dtype)
    total = out.new_zeros(())
    for k, t in enumerate(model.config.targets):
        has = torch.isfinite(targets[:, k])
        if not bool(has.any()):
            continue
        x, y = out[has, k], wanted[has, k]
        if t.kind == "class":
            part = functional.binary_cross_entropy_with_logits(x, y)
        else:
            part = (x - y).abs().mean() if kind == "l1" else (x - y).square().mean()
            if model.config.scales:
                # that of a Laplace distribution; the error is given, so that no crystal is given up
                scale = logarithms[has, k]
                size = (x - y).detach().abs()
                part = part + SCALE_WEIGHT * (size * (-scale).exp() + scale).mean()
        total = total + t.weight * part
    return total


def learning_rate(schedule: PropertySchedule, epoch: float, per_epoch: int) -> float:
    """The rate at a time in epochs, which may lie within one of `per_epoch` steps."""
    peak = schedule.learning_rate
    if schedule.schedule == "inverse_sqrt":
        return peak * math.sqrt(4000 / (4000 + epoch * per_epoch))
    up = 0.3 * schedule.epochs
    low, end = peak / 25, peak / 1e4
    if epoch < up:
        return low + (peak - low) * 0.5 * (1 - math.cos(math.pi * epoch / up))
    down = (epoch - up) / (schedule.epochs - up)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * down))


@torch.no_grad()
def predict_all(model: PropertyModel, data: CrystalSet, size: int = 256) -> Tensor:
    """Properties (n, n_targets), float64, of a set."""
    model.eval()
    return torch.cat([
        model.read_out(model.last_features(gather(data, rows)[0])) for rows in batches(data, size)
    ])  # fmt: skip


def errors_of(kinds: Sequence[Target], values: Tensor, targets: Tensor) -> dict[str, float]:
    """Mean absolute error of each target in what is learned; of classes the share of right ones."""
    found = {}
    for k, t in enumerate(kinds):
        has = torch.isfinite(targets[:, k])
        if not bool(has.any()):
            continue
        x, y = values[has, k], targets[has, k]
        score = (
            ((x > 0) == (y > 0.5)).double().mean() if t.kind == "class" else (x - y).abs().mean()
        )
        found[t.name] = float(score)
    return found


def normalizations(model: PropertyModel) -> list[WeightedBatchNorm]:
    """The batch normalizations of a network."""
    return [m for m in model.modules() if isinstance(m, WeightedBatchNorm)]


def refresh_statistics(model: PropertyModel, data: CrystalSet, size: int) -> None:
    """Recompute the statistics of all batch normalizations for the weights as they are."""
    norms = normalizations(model)
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    model.train()
    with torch.no_grad():
        for rows in batches(data, size, np.random.default_rng(0)):
            model(gather(data, rows)[0])
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.eval()


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
        Receives ``model/``, ``log.csv``, ``evaluation.json``, ``reliability.png`` and checkpoints.
    data_folder : Path
        Where relative paths of data start.
    report, on_graph : callable
        Called after each epoch, and after each graph that is built.
    checkpoint_seconds : float
        Least time between checkpoints.
    stop_after : int, optional
        Stop with a checkpoint after so many epochs over all.

    Returns
    -------
    dict or None
        Errors per split (those of training on a sample of 5,000); None if stopped before the end.
    """
    schedule, names = config.schedule, [t.name for t in config.targets]
    found = {
        split: read_crystals([data_folder / f for f in files], names) if files else []
        for split, files in asdict(config.data).items()
    }
    if len(found["train"]) < 2 or not found["validation"]:
        raise DatasetError("a property model needs two training crystals and one for validation")
    numbers = {int(z) for c in found["train"] for z in set(c.atoms.numbers.tolist())}
    source = load_source(config.fine_tune) if config.fine_tune is not None else None
    elements = source.config.elements if source is not None else tuple(sorted(numbers))
    # crystals of elements that were never seen cannot be judged
    covered = {
        s: [c for c in crystals if set(c.atoms.numbers.tolist()) <= set(elements)]
        for s, crystals in found.items()
    }
    first = new_network(config, 0, elements, source)
    require_potential(first.config)
    sets = {s: crystal_set(c, first, on_graph) for s, c in covered.items() if c}
    out.mkdir(parents=True, exist_ok=True)
    members = []
    kept = {k for k, _ in shared_targets(first.config, source.config)} if source else set()
    for k in range(config.members):
        network = new_network(config, k, elements, source)
        standardize(network, sets["train"].targets, kept)
        done = train_network(
            network, config, out, k, sets, report,
            checkpoint_seconds=checkpoint_seconds, stop_after=stop_after,
        )  # fmt: skip
        if not done:
            return None
        members.append(network)
    # some thousands of crystals say enough of means and covariances
    rows = sample(len(covered["train"]), 5000, config.seed)
    sets["train"] = some = select(sets["train"], rows)
    for network in members:
        if not schedule.frozen_epochs:
            refresh_statistics(network, some, schedule.batch_size)
        fit_distances(network, some)
    model = PropertyEnsemble.of(members).requires_grad_(False)
    chosen = covered | {"train": [covered["train"][r] for r in rows]}
    sets = {s: with_energies(d, chosen[s], model.config) for s, d in sets.items()}
    fit_potential_weight(model, sets["validation"])
    fit_uncertainty(model, sets["validation"])
    fit_volumes(model, covered["train"])
    table = {s: errors_of(config.targets, answers(model, d)[0], d.targets) for s, d in sets.items()}
    details = {"name": config.name, "seed": config.seed, "schedule": asdict(schedule),
               "crystals": {s: len(c) for s, c in covered.items()}}  # fmt: skip
    save_property_model(out / "model", model, details)
    (out / "evaluation.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    drawn = errors_and_deviations(model, sets["validation"])
    if drawn:
        figure = reliability_figure(drawn, unit="as learnt", title=f"{config.name}, validation")
        write_figure(figure, out / "reliability.png")
    return table


def new_network(
    config: PropertyTraining,
    member: int,
    elements: tuple[int, ...],
    source: PropertyEnsemble | None,
) -> PropertyModel:
    """The network that a member starts as; a member of `source` if that is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + member)
        values = config.property | {"targets": config.targets, "elements": elements}
        if (term := config.property.get("potential")) is not None:
            values["potential"] = build(PotentialTerm, term)
        network = PropertyModel(build(PropertyConfig, values))
    if source is not None:
        start_from(network, source.networks[member % len(source.networks)])
    return network


def train_network(
    model: PropertyModel,
    config: PropertyTraining,
    out: Path,
    member: int,
    sets: Mapping[str, CrystalSet],
    report: Callable[[EpochReport], None],
    *,
    checkpoint_seconds: float,
    stop_after: int | None,
) -> bool:
    """Train one network, or go on with it; False if stopped before its end.

    `stop_after` counts the epochs of all members.
    """
    schedule, train, validation = config.schedule, sets["train"], sets["validation"]
    before, state_file = (
        member * schedule.epochs,
        out / (STATE if not member else f"{member}-{STATE}"),
    )
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": schedule.weight_decay},
         {"params": others, "weight_decay": 0.0}], lr=schedule.learning_rate, betas=(0.9, 0.98),
    )  # fmt: skip
    first, average, averaged = 0, {n: p.detach().clone() for n, p in model.named_parameters()}, 0
    if state_file.is_file():
        state = load_checkpoint(state_file)
        if state["config"] != plain(config):
            raise CheckpointError(
                f"{state_file} belongs to another configuration; choose another output folder"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, average, averaged = state["epoch"], state["average"], state["averaged"]
    saved = time.monotonic()
    for epoch in range(first, schedule.epochs):
        if stop_after is not None and before + epoch >= stop_after:
            return False
        began, losses = time.monotonic(), []
        frozen = epoch - (schedule.epochs - schedule.frozen_epochs)
        if frozen == 0:
            some = select(train, sample(len(train.graphs), 5000, config.seed))
            refresh_statistics(model, some, schedule.batch_size)
        model.train()
        if frozen >= 0:
            for norm in normalizations(model):
                norm.eval()
        drawn = batches(
            train,
            schedule.batch_size,
            np.random.default_rng((config.seed + member, epoch)),
            schedule.full_edges,
        )
        for k, rows in enumerate(drawn):
            rate = learning_rate(schedule, epoch + k / len(drawn), len(drawn))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            value = loss_of(model, *gather(train, rows), schedule.loss)
            if not torch.isfinite(value):
                raise SimulationError(
                    f"the training loss is {value.item()} in epoch {epoch}; lower the learning "
                    f"rate or check the labels (the last checkpoint is intact)"
                )
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.gradient_clip)
            optimizer.step()
            losses.append(float(value.detach()))
            if epoch >= schedule.epochs - schedule.average_epochs:
                averaged += 1
                for n, p in model.named_parameters():
                    average[n].lerp_(p.detach(), 1.0 / averaged)
        seconds = time.monotonic() - began
        done = epoch + 1
        errors = errors_of(config.targets, predict_all(model, validation), validation.targets)
        report(EpochReport(before + done, float(np.mean(losses)), seconds, errors))
        append_log(out / "log.csv", before + done, float(np.mean(losses)), seconds, errors)
        stop = stop_after is not None and before + done >= stop_after
        if done == schedule.epochs or stop or time.monotonic() - saved > checkpoint_seconds:
            save_checkpoint(state_file, {
                "config": plain(config), "epoch": done, "model": model.state_dict(),
                "optimizer": optimizer.state_dict(), "average": average, "averaged": averaged,
            })  # fmt: skip
            saved = time.monotonic()
    model.load_state_dict(average, strict=False)
    return True


def load_source(name: str) -> PropertyEnsemble:
    """The shipped model, or that of a folder, that a fine-tuning starts from."""
    entry = find_property_model(name)
    if entry is not None:
        return load_property_model(entry.folder, entry.sha256)
    return load_property_model(Path(name).expanduser())


def start_from(model: PropertyModel, initial: PropertyModel) -> None:
    """Copy the weights of a trained network, and what reads the targets that both have.

    Raises
    ------
    ValueError
        If the networks differ in more than their targets.
    """
    for option in ("backbone", "options", "hidden", "scales"):
        own, theirs = getattr(model.config, option), getattr(initial.config, option)
        if own != theirs:
            raise ValueError(
                f"`{option}` in [property] must be that of the model to start from, {theirs!r}, "
                f"got {own!r}"
            )
    last = {n: t for n, t in initial.state_dict().items() if not n.startswith(("last.", "target"))}
    model.load_state_dict(model.state_dict() | last)
    n, n_theirs = len(model.config.targets), len(initial.config.targets)
    with torch.no_grad():
        for k, j in shared_targets(model.config, initial.config):
            model.target_mean[k] = initial.target_mean[j]
            model.target_scale[k] = initial.target_scale[j]
            rows = [(k, j), (n + k, n_theirs + j)] if model.config.scales else [(k, j)]
            for own, theirs in rows:
                model.last.weight[own] = initial.last.weight[theirs]
                model.last.bias[own] = initial.last.bias[theirs]


def shared_targets(own: PropertyConfig, theirs: PropertyConfig) -> list[tuple[int, int]]:
    """Index in both of each target that is of the same name and kind."""
    places = {(t.name, t.kind): j for j, t in enumerate(theirs.targets)}
    return [
        (k, places[t.name, t.kind]) for k, t in enumerate(own.targets) if (t.name, t.kind) in places
    ]


def plain(config: PropertyTraining) -> dict[str, Any]:
    """The configuration as JSON holds it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    if config.fine_tune is None:  # not in checkpoints that were written before there was a choice
        del values["fine_tune"]
    if not config.schedule.frozen_epochs:  # likewise
        del values["schedule"]["frozen_epochs"]
    return values


def append_log(
    path: Path, epoch: int, loss: float, seconds: float, errors: dict[str, float]
) -> None:
    """One row per epoch: loss, seconds and errors of validation."""
    if not path.exists():
        header = ["epoch", "loss", "seconds", *errors]
        path.write_text(",".join(header) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as handle:
        values = [
            str(epoch),
            f"{loss:.5f}",
            f"{seconds:.1f}",
            *(f"{e:.5f}" for e in errors.values()),
        ]
        handle.write(",".join(values) + "\n")
