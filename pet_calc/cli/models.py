"""``pet-calc models``: the potentials that ship with the package, and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pet_calc.pretrained import PotentialEntry
    from pet_calc.training.potentials.card import CardNumber

models_app = typer.Typer(
    help="List, show, verify, download and import potentials.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of a potential, or a potential's folder.")]


@models_app.command("list")
def list_models() -> None:
    """List the shipped potentials, and the published ones that can be downloaded.

    Example: pet-calc models list
    """
    from rich.console import Console
    from rich.table import Table

    from pet_calc.io.cache import cache_folder
    from pet_calc.io.foreign.hub import converted_folder, is_downloaded
    from pet_calc.io.foreign.published import PUBLISHED
    from pet_calc.io.models.files import WEIGHTS
    from pet_calc.pretrained import list_potentials

    table = Table()
    for column in ("name", "elements", "method", "size", "test errors (MAE)", "for"):
        table.add_column(column, overflow="fold")
    for entry in list_potentials():
        table.add_row(
            entry.name,
            " ".join(entry.elements),
            entry.method,
            f"{entry.size / 1e6:.2f} MB",
            errors_of(entry),
            entry.summary,
        )
    console = Console()
    console.print(table if table.row_count else "no potential ships with this version")

    properties = Table(title="models of properties (pet-calc predict)", title_justify="left")
    for column in ("name", "properties", "elements", "size", "for"):
        properties.add_column(column, overflow="fold")
    for entry in list_potentials("property"):
        size = f"{entry.size / 1e6:.2f} MB"
        of = " ".join(entry.targets)
        properties.add_row(entry.name, of, str(len(entry.elements)), size, entry.summary)
    if properties.row_count:
        console.print(properties)

    cache = cache_folder()
    published = Table(title="published, for download", title_justify="left")
    for column in ("name", "method", "for", "downloaded"):
        published.add_column(column, overflow="fold")
    for model in PUBLISHED:
        weights = converted_folder(model, cache) / WEIGHTS
        here = is_downloaded(model, cache)
        size = f"{weights.stat().st_size / 1e6:.0f} MB" if here else "no"
        published.add_row(model.name, model.method, model.purpose, size)
    console.print(published)


def errors_of(entry: PotentialEntry) -> str:
    """The errors on test data that a potential's card states; "-" if it states none."""
    from pet_calc.errors import PetCalcError
    from pet_calc.pretrained import read_card

    try:
        metrics: Any = read_card(entry.folder).front.get("metrics")
    except PetCalcError:
        return "-"
    test = metrics.get("test") if isinstance(metrics, dict) else None
    if not isinstance(test, dict):
        return "-"
    shown = (
        ("energy_mae_meV_atom", "meV/atom"),
        ("force_mae_meV_A", "meV/Å"),
        ("stress_mae_GPa", "GPa"),
    )
    return ", ".join(f"{test[key]:.3g} {unit}" for key, unit in shown if key in test) or "-"


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

    from pet_calc.pretrained import CARD, find_property_model, resolve

    entry = find_property_model(name) or resolve(name)
    card = entry.folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"{card.parent} has no card"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


@models_app.command("path")
def path(name: Name) -> None:
    """Print the folder of a potential, for use in scripts.

    Example: pet-calc models path pet-water-v1
    """
    from pet_calc.pretrained import find_property_model, resolve

    typer.echo((find_property_model(name) or resolve(name)).folder)


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


def print_numbers(numbers: Sequence[CardNumber], console: Console) -> None:
    """Print the numbers of a card beside those found."""
    from rich.table import Table

    table = Table(title="errors of the card, measured again", title_justify="left")
    for column in ("set", "quantity", "stated", "found", ""):
        table.add_column(column)
    for n in numbers:
        verdict = "ok" if n.within else "differs"
        table.add_row(n.split, n.name, f"{n.stated:.4g}", f"{n.found:.4g}", verdict)
    console.print(table)


def verify_property_model(entry: PotentialEntry, data: Path | None, console: Console) -> None:
    """Check digests and recorded predictions of a property model, and the errors of its card."""
    from pet_calc.crystals.properties.recorded_predictions import compare_predictions
    from pet_calc.crystals.training.card import measure_property_card
    from pet_calc.errors import IntegrityError

    compare_predictions(entry)
    console.print(f"{entry.name}: SHA-256 and recorded predictions as recorded")
    if data is not None:
        numbers = measure_property_card(entry, data)
        print_numbers(numbers, console)
        wrong = [n for n in numbers if not n.within]
        if wrong:
            raise IntegrityError(
                f"the card of {entry.name} states {len(wrong)} error(s) that its weights do not "
                f"have, first {wrong[0].name} of {wrong[0].split}; correct the card, or name the "
                f"data that it was measured on"
            )
    console.print(f"{entry.name}: everything is as recorded")


def verify_card(name: str, data: Path, console: Console) -> None:
    """Print the errors that a card states beside measured ones; raise if one differs."""
    from pet_calc.errors import IntegrityError
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
    print_numbers(numbers, console)
    wrong = [n for n in numbers if not n.within]
    if wrong:
        raise IntegrityError(
            f"the card of {name} states {len(wrong)} error(s) that its weights do not have, first "
            f"{wrong[0].name} of {wrong[0].split}: {wrong[0].stated:.4g}, found "
            f"{wrong[0].found:.4g}; correct the card, or name the data that it was measured on"
        )
