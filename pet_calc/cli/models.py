"""``pet-calc models``: the potentials that ship with the package, and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.import_checkpoint import import_model

if TYPE_CHECKING:
    from rich.console import Console

    from pet_calc.pretrained import PotentialEntry
    from pet_calc.pretrained.index import Kind
    from pet_calc.training.potentials.card import CardNumber

models_app = typer.Typer(
    help="List, show, verify, download and import potentials.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of a potential, or a potential's folder.")]


#: Elements that are named one by one; more are counted.
MOST_ELEMENTS = 8
#: Errors on test data in the front matter of a card, with the headings of their columns.
ERRORS = {
    "energy_mae_meV_atom": "E, meV/atom", "force_mae_meV_A": "F, meV/Å", "stress_mae_GPa": "σ, GPa"
}  # fmt: skip


@models_app.command("list")
def list_models(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also deprecated ones, and published ones to download."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List the potentials, property models and generators that ship with the package.

    Errors are mean absolute errors on test data, as the card of each potential states them.

    Example: pet-calc models list --all
    """
    import json

    records = {kind: records_of(kind, everything) for kind in ("energy", "property", "generator")}
    if everything:
        records["published"] = published_records()
    if as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if not any(records.values()):
        console.print("no potential ships with this version")
        return
    print_records(console, "potentials", records["energy"], ("method", "status", *ERRORS))
    columns: tuple[str, ...] = ("properties", "method", "status")
    print_records(console, "property models (pet-calc predict)", records["property"], columns)
    columns = ("status", "purpose")
    print_records(console, "generators (pet-calc generate)", records["generator"], columns)
    if everything:
        columns = ("method", "downloaded", "purpose")
        print_records(console, "published, for download", records["published"], columns)


def records_of(kind: Kind, everything: bool) -> list[dict[str, Any]]:
    """The shipped models of a kind as plain values."""
    from pet_calc.pretrained import list_potentials

    return [
        {
            "name": entry.name,
            "elements": list(entry.elements),
            "properties": list(entry.targets),
            "method": entry.method,
            "status": entry.status,
            "size_MB": round(entry.size / 1e6, 2),
            "purpose": entry.summary,
            **(errors_of(entry) if kind == "energy" else {}),
        }
        for entry in list_potentials(kind)
        if everything or entry.status != "deprecated"
    ]


def published_records() -> list[dict[str, Any]]:
    """The published models as plain values."""
    from pet_calc.io.cache import cache_folder
    from pet_calc.io.foreign.hub import is_downloaded
    from pet_calc.io.foreign.published import PUBLISHED

    cache = cache_folder()
    return [
        {
            "name": model.name,
            "method": model.method,
            "downloaded": "yes" if is_downloaded(model, cache) else "no",
            "purpose": model.purpose,
        }
        for model in PUBLISHED
    ]


def errors_of(entry: PotentialEntry) -> dict[str, float]:
    """The errors on test data that a potential's card states."""
    from pet_calc.errors import PetCalcError
    from pet_calc.pretrained import read_card

    try:
        metrics: Any = read_card(entry.folder).front.get("metrics")
    except PetCalcError:
        return {}
    test = metrics.get("test") if isinstance(metrics, dict) else None
    return {k: test[k] for k in ERRORS if k in test} if isinstance(test, dict) else {}


def print_records(
    console: Console, title: str, records: list[dict[str, Any]], columns: Sequence[str]
) -> None:
    """A table of models in 100 columns; names are never broken."""
    if not records:
        return
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("name", no_wrap=True)
    elements = any(record.get("elements") for record in records)
    if elements:
        table.add_column("elements", overflow="fold")
    for name in columns:
        numeric = name in ERRORS
        table.add_column(
            ERRORS.get(name, name), overflow="fold", justify="right" if numeric else "left"
        )
    for record in records:
        known = record.get("elements", [])
        shown = " ".join(known) if len(known) <= MOST_ELEMENTS else f"{len(known)} elements"
        table.add_row(
            record["name"],
            *([shown] if elements else []),
            *(cell(record.get(name, "")) for name in columns),
        )
    console.print(table)


def cell(value: Any) -> str:
    """A value of a table: numbers with three digits, words of a list with spaces."""
    if isinstance(value, list):
        return " ".join(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@models_app.command("download")
def download_model(
    name: Annotated[str, typer.Argument(help="Name of a published model, such as pet-mad-s.")],
) -> None:
    """Download a published model into the cache, for later use without a network.

    Example: pet-calc models download pet-mad-s
    """
    from pet_calc.errors import PotentialNotFoundError
    from pet_calc.io.cache import cache_folder
    from pet_calc.io.foreign.hub import fetch
    from pet_calc.io.foreign.published import PUBLISHED, find_published

    published = find_published(name)
    if published is None:
        known = ", ".join(p.name for p in PUBLISHED)
        raise PotentialNotFoundError(f"no published model is named {name!r}; there are {known}")
    typer.echo(f"{published.name}: {fetch(published, cache_folder())}")


@models_app.command("show")
def show(name: Name) -> None:
    """Print a potential's card.

    Example: pet-calc models show pet-water-v1
    """
    from rich.console import Console

    from pet_calc.pretrained import CARD

    card = entry_of(name).folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"{card.parent} has no card"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


@models_app.command("path")
def path(name: Name) -> None:
    """Print the folder of a potential, for use in scripts.

    Example: pet-calc models path pet-water-v1
    """
    typer.echo(entry_of(name).folder)


def entry_of(name: str) -> PotentialEntry:
    """A shipped model of any kind, or the potential in a folder."""
    from pet_calc.io.foreign.published import find_published
    from pet_calc.pretrained.index import find_shipped, unknown_name

    kinds: tuple[Kind, ...] = ("energy", "property", "generator")
    for kind in kinds:
        if (entry := find_shipped(name, kind)) is not None:
            return entry
    if not Path(name).exists() and find_published(name) is None:
        raise unknown_name(name)
    from pet_calc.pretrained import resolve  # loads torch

    return resolve(name)


@models_app.command("verify")
def verify_model(
    name: Name,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the test data: measure every error of the card again."),
    ] = None,
) -> None:
    """Check a potential's files against their SHA-256 and its results against the recorded ones.

    Example: pet-calc models verify pet-water-v1 --data DATA
    """
    from rich.console import Console
    from rich.table import Table

    from pet_calc.pretrained import find_property_model, verify
    from pet_calc.workflows.progress import pulsing

    console = Console()
    if (entry := find_property_model(name)) is not None:
        verify_property_model(entry, data, console)
        return
    with pulsing("recorded results"):
        verification = verify(name)
    for file, (recorded, found) in verification.digests.items():
        console.print(f"{file}: SHA-256 {'as recorded' if recorded == found else 'differs'}")
    if verification.deviations:
        table = Table(title="largest deviation from the recorded results", title_justify="left")
        for column in ("dtype", "structure", "quantity", "deviation", "limit", "unit", ""):
            table.add_column(column)
        units = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
        for dtype, deviations in verification.deviations.items():
            for d in deviations:
                verdict = "ok" if d.within else "differs"
                numbers = (f"{d.found:.2e}", f"{d.tolerance:.0e}", units[d.quantity])
                table.add_row(dtype, d.structure, d.quantity, *numbers, verdict)
        console.print(table)
    verification.require(name)
    if data is not None:
        verify_card(name, data, console)
    console.print(f"{name}: everything is as recorded")


@models_app.command("record")
def record_results(
    folder: Annotated[Path, typer.Argument(help="Folder of a potential or property model.")],
    structures: Annotated[
        Path, typer.Argument(help="File of the structures; three of different kinds are usual.")
    ],
) -> None:
    """Record a new model's results in its expected.json, which `models verify` compares.

    Example: pet-calc models record runs/mine/model structures.extxyz
    """
    from pet_calc.cli.inputs import read_structures
    from pet_calc.crystals.io.property_weights import is_property_model
    from pet_calc.crystals.properties.recorded_predictions import record_predictions
    from pet_calc.io.models.expected import EXPECTED
    from pet_calc.pretrained import record

    frames = read_structures(structures)
    if is_property_model(folder):
        record_predictions(folder, frames)
    else:
        record(folder, frames)
    typer.echo(f"results of {len(frames)} structure(s) in {folder / EXPECTED}")


def verify_property_model(entry: PotentialEntry, data: Path | None, console: Console) -> None:
    """Check digests and recorded predictions of a property model, and the errors of its card."""
    from pet_calc.crystals.properties.recorded_predictions import compare_predictions
    from pet_calc.crystals.training.card import measure_property_card

    compare_predictions(entry)
    console.print(f"{entry.name}: SHA-256 and recorded predictions as recorded")
    if data is not None:
        compare_card(entry.name, measure_property_card(entry, data), console)
    console.print(f"{entry.name}: everything is as recorded")


def verify_card(name: str, data: Path, console: Console) -> None:
    """Measure the errors that a potential's card states."""
    from pet_calc.pretrained import load
    from pet_calc.training.potentials.card import measure_card
    from pet_calc.workflows.progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("reading", total=None)
        numbers = measure_card(
            load(name),
            data,
            on_frame=lambda split, done, total: bar.update(
                task, description=split, completed=done, total=total
            ),
        )
    compare_card(name, numbers, console)


def compare_card(name: str, numbers: Sequence[CardNumber], console: Console) -> None:
    """Print the errors that a card states beside measured ones.

    Raises
    ------
    IntegrityError
        If one differs.
    """
    from rich.table import Table

    from pet_calc.errors import IntegrityError

    table = Table(title="errors of the card, measured again", title_justify="left")
    for column in ("set", "quantity", "stated", "found", ""):
        table.add_column(column)
    for n in numbers:
        verdict = "ok" if n.within else "differs"
        table.add_row(n.split, n.name, f"{n.stated:.4g}", f"{n.found:.4g}", verdict)
    console.print(table)
    if wrong := [n for n in numbers if not n.within]:
        raise IntegrityError(
            f"the card of {name} states {len(wrong)} error(s) that its weights do not have, first "
            f"{wrong[0].name} of {wrong[0].split}: {wrong[0].stated:.4g}, found "
            f"{wrong[0].found:.4g}; correct the card, or name the data that it was measured on"
        )


models_app.command("import")(import_model)
