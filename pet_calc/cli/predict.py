"""``pet-calc predict``: properties of crystals, with uncertainty and domain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from pet_calc.cli.options import ConfigOption, ReportedFolder, Structures
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.crystals.properties.predictor import PropertyPredictor

OUTPUTS = ("predict.csv", "predict.json")
COLUMNS = ("file", "frame", "formula", "property", "value", "unit", "std", "in_domain", "reason")
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Question:
    """What is predicted, by which model.

    Attributes
    ----------
    property : tuple of str
        Properties, such as band_gap, separated by commas.
    model : str
        Name or folder of a property model; auto picks one for each property.
    """

    panel: ClassVar[str] = "Model"

    property: tuple[str, ...]
    model: str = "auto"


@options_of(out=Path("predict_out"))
def predict(
    context: typer.Context,
    structures: Structures,
    question: Question,
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Properties of crystals, each with its standard deviation and whether the model covers it.

    For example:

      pet-calc predict POSCAR more.cif --property bulk_modulus,shear_modulus

    Writes predict.toml (the settings), predict.csv and predict.json. A crystal that cannot be
    judged (no cell, disordered, an element that was not trained on) has a row with the reason;
    if none can, the exit code is 1.
    """
    run = Run(context, folder, OUTPUTS)
    crystals = structures.read()
    from pet_calc.crystals.properties.predictor import PropertyPredictor
    from pet_calc.io.models.files import WEIGHTS, sha256

    predictors = [PropertyPredictor(p, question.model) for p in question.property]
    models = {p.property: p.name for p in predictors}
    digests = {p.name: sha256(p.folder / WEIGHTS) for p in predictors}
    # properties of several models cannot be asked of one of them
    chosen: dict[str, Any] = {"model": next(iter(digests)) if len(digests) == 1 else None}
    run.begin(
        packages=("ase", "numpy", "torch", "spglib"),
        record={"model": list(digests), "sha256": list(digests.values())},
        **(chosen if question.model == "auto" else {}),
    )
    rows = [row for p in predictors for row in predictions(p, crystals)]
    run.write_csv("predict.csv", COLUMNS, rows)
    plain = [
        {n: None if isinstance(x, float) and math.isnan(x) else x
         for n, x in zip(COLUMNS, row, strict=True)} for row in rows
    ]  # fmt: skip
    run.write_json("predict.json", {"models": models, "predictions": plain})
    run.console.print(table_of(rows, run))
    run.page()
    raise typer.Exit(1 if all(math.isnan(row[4]) for row in rows) else 0)


def predictions(predictor: PropertyPredictor, crystals: list[tuple[Path, int, Any]]) -> list[Row]:
    """A row for each crystal."""
    from pet_calc.workflows.progress import progress_bar

    rows = []
    found = predictor.iterate([a for _, _, a in crystals])
    with progress_bar() as bar:
        title = f"{predictor.property} by {predictor.name}"
        counted = bar.track(found, len(crystals), description=title)
        for (path, frame, atoms), p in zip(crystals, counted, strict=True):
            rows.append((
                str(path), frame, atoms.get_chemical_formula(), predictor.property, p.value,
                p.unit, p.std, p.in_domain, p.reason,
            ))  # fmt: skip
    return rows


def table_of(rows: list[Row], run: Run) -> Table:
    """The first rows for the terminal."""
    from rich.table import Table

    title = "predictions" + (", the first 20" if len(rows) > 20 else "")
    table = Table(title=title, caption=f"files in {run.out}: {', '.join(run.files().split())}")
    for name in ("formula", "property", "value", "in domain", "reason"):
        table.add_column(name, overflow="fold")
    for _, _, formula, name, value, unit, std, inside, reason in rows[:20]:
        spread = "" if math.isnan(std) else f" ± {std:.2g}"
        answer = "–" if math.isnan(value) else f"{value:.4g}{spread} {unit}".strip()
        table.add_row(formula, name, answer, "yes" if inside else "no", reason)
    return table
