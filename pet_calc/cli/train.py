"""``pet-calc train``: train a potential, a property model or a generator of crystals."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from pet_calc.io.data.datasets import LabelCensus
    from pet_calc.training.potentials.config import TrainConfig
    from pet_calc.training.potentials.evaluate import Evaluation
    from pet_calc.training.potentials.forgetting import Change
    from pet_calc.training.potentials.loop import Progress as TrainingProgress
    from pet_calc.training.potentials.uncertainty import CalibrationError


@dataclass(frozen=True)
class TrainingRun:
    """Where a training reads and writes, and when it stops.

    Attributes
    ----------
    out, data, beside : Path
        Folder of the run, of the data, and of the configuration.
    checkpoint_seconds : float
    stop_after : int, optional
    console : Console
    """

    out: Path
    data: Path
    beside: Path
    checkpoint_seconds: float
    stop_after: int | None
    console: Console

    def stopped(self) -> None:
        """Tell that the training is not at its end."""
        self.console.print(f"stopped before the end; the same command goes on from {self.out}")


def train(
    config: Annotated[Path, typer.Argument(help="TOML file that describes the training.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run goes on.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder where relative data paths start [the config's].")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.")] = 120.0,
    stop_after: Annotated[
        int | None,
        typer.Option(
            help="Stop with a checkpoint after so many steps over all (epochs of property models)."
        ),
    ] = None,
) -> None:
    """Train a potential, a property model or a generator of crystals.

    The file says which: a property model has a table [property], a generator names its `files` at
    the top. Called again with the same folder, a training goes on where it stopped.

    Example: pet-calc train potentials/pet-water-v1/train.toml --data DATA --out runs/water
    """
    from pet_calc.training.core.config_reader import read_toml

    values = read_toml(config)
    # of the processes that torchrun starts, one speaks
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    run = TrainingRun(
        out, data or config.parent, config.parent, checkpoint_seconds, stop_after, console
    )
    if "property" in values:
        train_property_model(values, run)
    elif "files" in values:
        train_crystal_generator(values, run)
    else:
        train_potential(values, run)


def train_potential(values: dict[str, Any], run: TrainingRun) -> None:
    """Train a potential, and print what was found in the data and the errors at the end."""
    from pet_calc.training.potentials.config import TrainConfig
    from pet_calc.training.potentials.loop import load_data
    from pet_calc.training.potentials.loop import train as run_training
    from pet_calc.workflows.progress import pulsing

    settings, console = TrainConfig.from_dict(values), run.console
    with pulsing("reading"):
        splits = load_data(settings, run.data, beside=run.beside)
    console.print(census_table(splits.census))
    old = len(splits.order.replay)
    mixed = f" and {old} old ones, {splits.order.replayed} of them in an epoch" if old else ""
    console.print(
        f"{len(splits.train) - old} frames to train on{mixed}, {len(splits.validation)} held out "
        f"for validation"
    )
    with training_bar() as bar:
        task = bar.add_task(settings.name, total=settings.total_steps, status="")

        def report(progress: TrainingProgress) -> None:
            status = (
                f"loss {progress.loss:.3g} forces {progress.forces_rmse:.0f} meV/Å "
                f"rate {progress.learning_rate:.1e}"
            )
            if progress.step == settings.total_steps:
                status = "errors of the averaged weights"
            bar.update(task, completed=progress.step, status=status)
            if progress.validation is not None:
                v = progress.validation
                bar.console.print(
                    f"step {progress.step}: validation energy MAE {v.energy.mae:.3f} meV/atom, "
                    f"forces RMSE {v.forces.rmse:.1f} meV/Å (training {progress.forces_rmse:.1f})"
                )

        table = run_training(
            settings,
            run.out,
            splits,
            report=report,
            checkpoint_seconds=run.checkpoint_seconds,
            stop_after=run.stop_after,
        )
    if console.quiet:
        return
    if table is None:
        run.stopped()
        return
    print_results(settings, run.out, table, console)


def print_results(
    settings: TrainConfig, out: Path, table: dict[str, Evaluation], console: Console
) -> None:
    """Errors of a trained potential, and what else its run measured."""
    from pet_calc.training.potentials.forgetting import read_comparison
    from pet_calc.training.potentials.loop import COMPARISON
    from pet_calc.training.potentials.uncertainty import CalibrationError

    console.print(evaluation_table(table))
    if settings.fine_tune is not None:
        console.print(comparison_table(read_comparison(out / COMPARISON)))
    if settings.uncertainty is not None:
        stored = json.loads((out / "calibration.json").read_text(encoding="utf-8"))
        found = {split: CalibrationError(**values) for split, values in stored.items()}
        console.print(calibration_table(found))
    elif settings.fine_tune is not None and has_uncertainty(settings.fine_tune.source):
        console.print(
            f"{settings.fine_tune.source} has uncertainties, the tuned potential has none; a table "
            f"\\[uncertainty] in the configuration fits them"
        )
    console.print(f"potential: {out / 'model'}")


def has_uncertainty(name: str) -> bool:
    """Whether a potential, by name or folder, has an uncertainty model."""
    from pet_calc.io.models.uncertainty import find_uncertainty
    from pet_calc.models.pet import PET
    from pet_calc.pretrained import load

    potential = load(name)
    if potential.folder is None or not isinstance(potential.model, PET):
        return False
    return find_uncertainty(potential.folder, potential.model.energy_head) is not None


def train_property_model(values: dict[str, Any], run: TrainingRun) -> None:
    """Train a property model; its steps are epochs."""
    from pet_calc.crystals.training.property_config import PropertyTraining
    from pet_calc.crystals.training.property_loop import EpochReport, train_property

    settings = PropertyTraining.from_dict(values)
    with training_bar() as bar:
        graphs = bar.add_task("graphs", total=None, status="")
        epochs = settings.members * settings.schedule.epochs
        task = bar.add_task(settings.name, total=epochs, status="")

        def on_epoch(report: EpochReport) -> None:
            bar.update(task, completed=report.epoch, status=f"loss {report.loss:.4f}")
            found = ", ".join(f"{name} {e:.4f}" for name, e in report.validation.items())
            bar.console.print(f"epoch {report.epoch} ({report.seconds:.1f} s): validation {found}")

        found = train_property(
            settings, run.out, run.data, report=on_epoch, on_graph=lambda: bar.advance(graphs),
            checkpoint_seconds=run.checkpoint_seconds, stop_after=run.stop_after,
        )  # fmt: skip
    if found is None:
        run.stopped()
        return
    kinds = {t.name: (t.kind, t.unit) for t in settings.targets}
    table = Table(title="errors of the averaged weights", title_justify="left")
    for name in ("split", "property", "measure", "value"):
        table.add_column(name)
    for split, errors in found.items():
        for name, value in errors.items():
            kind, unit = kinds[name]
            measure = {"class": "accuracy", "log10": f"MAE of log10({unit})"}.get(
                kind, f"MAE, {unit}"
            )
            table.add_row(split, name, measure, f"{value:.4f}")
    run.console.print(table)
    run.console.print(f"property model: {run.out / 'model'}")


def train_crystal_generator(values: dict[str, Any], run: TrainingRun) -> None:
    """Train a generator of crystals, and what chooses its compositions if that is asked for."""
    from pet_calc.crystals.training.generator import GeneratorConfig, train_generator

    settings = GeneratorConfig.from_dict(values)
    with training_bar() as bar:
        task = bar.add_task(settings.name, total=settings.steps, status="reading")
        folder = train_generator(
            settings, run.out, run.data,
            report=lambda step, loss: bar.update(
                task, completed=step, status=f"loss {loss:.4f}"
            ),
            checkpoint_seconds=run.checkpoint_seconds, stop_after=run.stop_after,
        )  # fmt: skip
    if folder is None:
        run.stopped()
        return
    run.console.print(f"generator: {folder}")


def training_bar() -> Progress:
    """A bar with the state of a training beside it; it stays when the training ends."""
    from pet_calc.workflows.progress import progress_bar

    columns = (
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    return progress_bar(*columns, transient=False)


def census_table(census: dict[str, LabelCensus]) -> Table:
    """Frames per split, label and key."""
    table = Table(title="labels found", title_justify="left")
    for name in ("split", "frames", "atoms", "elements", "label", "key", "frames with it"):
        table.add_column(name)
    for split, c in census.items():
        head = (split, str(c.n_frames), str(c.n_atoms), " ".join(c.elements))
        for label, key, n in c.rows():
            table.add_row(*head, label, key, str(n))
            head = ("", "", "", "")
    return table


def evaluation_table(evaluations: dict[str, Evaluation]) -> Table:
    """MAE and RMSE of each split; forces also per element."""
    table = Table(title="errors of the averaged weights", title_justify="left")
    for name in ("split", "quantity", "MAE", "RMSE", "unit", "values"):
        table.add_column(name, justify="right" if name in ("MAE", "RMSE", "values") else "left")
    for split, e in evaluations.items():
        rows = [
            ("energy", e.energy, "meV/atom"),
            ("forces", e.forces, "meV/Å"),
            *(
                (f"forces on {symbol}", error, "meV/Å")
                for symbol, error in e.forces_by_element.items()
            ),
            ("stress", e.stress, "meV/Å³"),
        ]
        for name, error, unit in rows:
            if error.count:
                table.add_row(
                    split, name, f"{error.mae:.3f}", f"{error.rmse:.3f}", unit, str(error.count)
                )
    return table


def comparison_table(changes: list[Change]) -> Table:
    """Root mean square errors before and after a fine-tuning."""
    title = "root mean square errors before and after the fine-tuning"
    table = Table(title=title, title_justify="left")
    for name in ("split", "quantity", "before", "after", "unit"):
        numeric = name in ("before", "after")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for c in changes:
        table.add_row(c.split, c.quantity, f"{c.rmse_before:.3f}", f"{c.rmse_after:.3f}", c.unit)
    return table


def calibration_table(found: dict[str, CalibrationError]) -> Table:
    """Uncertainties of energies beside their errors."""
    table = Table(title="uncertainty of the energy (σ) and error (e)", title_justify="left")
    table.add_column("split")
    table.add_column("quantity")
    for name in ("value", "calibrated"):
        table.add_column(name, justify="right")
    for split, c in found.items():
        head = split
        for name, value, ideal in (
            ("root mean square of e / σ", f"{c.z_rms:.2f}", "1.00"),
            ("share with |e| < σ", f"{c.within_one:.3f}", "0.683"),
            ("share with |e| < 2 σ", f"{c.within_two:.3f}", "0.954"),
            ("mean σ, meV/atom", f"{c.mean_sigma:.3f}", ""),
            ("root mean square of e, meV/atom", f"{c.rmse:.3f}", ""),
            ("CRPS, meV/atom", f"{c.crps:.3f}", ""),
            ("NLL, e in eV", f"{c.nll:.3f}", ""),
            ("rank correlation of |e| and σ", f"{c.rank_correlation:.2f}", ""),
            ("structures", str(c.count), ""),
        ):
            table.add_row(head, name, value, ideal)
            head = ""
    return table
