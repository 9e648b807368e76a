"""``pet-calc predict``: properties of crystals, with uncertainty and domain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_calc.cli.inputs import ConfigOption, read_structures, resolved_options
from pet_calc.cli.options import OverwriteOption, write_csv

OUTPUTS = ("predict.toml", "predict.csv", "predict.json")
COLUMNS = ("file", "frame", "formula", "property", "value", "unit", "std", "in_domain", "reason")


def predict(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Crystals in any format that ASE reads; all frames.")
    ],
    property: Annotated[
        list[str],
        typer.Option("--property", help="Such as band_gap; may be given several times."),
    ],
    model: Annotated[
        str, typer.Option(help="A shipped property model, a folder, or auto.")
    ] = "auto",
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("predict_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Properties of crystals, each with its standard deviation and whether the model knows such.

    For example:

      pet-calc predict POSCAR more.cif --property bulk_modulus --property shear_modulus

    Writes predict.toml (the settings), predict.csv and predict.json. A crystal that cannot be
    judged (no cell, disordered, an element that was not trained on) has a row with the reason;
    if none can, the exit code is 1.
    """
    import math

    from rich.console import Console
    from rich.table import Table

    from pet_calc.crystals.properties.predictor import PropertyPredictor
    from pet_calc.errors import InvalidStructureError
    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import json_text, provenance, settings_toml
    from pet_calc.workflows.progress import progress_bar

    console = Console()
    claim_folder(out, OUTPUTS, overwrite=overwrite)
    predictors = [PropertyPredictor(p, model) for p in property]
    crystals = [(path, k, a) for path in files for k, a in enumerate(read_structures(path))]
    origin = provenance()
    clear_folder(out, OUTPUTS)
    (out / "predict.toml").write_text(
        settings_toml("settings of pet-calc predict", resolved_options(context), origin),
        encoding="utf-8",
    )
    rows = []
    for predictor in predictors:
        found = predictor.iterate([a for _, _, a in crystals])
        with progress_bar() as bar:
            title = f"{predictor.property} by {predictor.name}"
            counted = bar.track(found, len(crystals), description=title)
            for (path, frame, atoms), p in zip(crystals, counted, strict=True):
                rows.append((
                    str(path), frame, atoms.get_chemical_formula(), predictor.property, p.value,
                    p.unit, p.std, p.in_domain, p.reason,
                ))  # fmt: skip
    write_csv(out / "predict.csv", COLUMNS, rows)
    plain = [
        {n: None if isinstance(x, float) and math.isnan(x) else x
         for n, x in zip(COLUMNS, row, strict=True)} for row in rows
    ]  # fmt: skip
    models = {p.property: p.name for p in predictors}
    (out / "predict.json").write_text(
        json_text({"models": models, "predictions": plain}, origin), encoding="utf-8"
    )
    table = Table(title="predictions" + (", the first 20" if len(rows) > 20 else ""))
    for name in ("formula", "property", "value", "in domain", "reason"):
        table.add_column(name, overflow="fold")
    for _, _, formula, name, value, unit, std, inside, reason in rows[:20]:
        spread = "" if math.isnan(std) else f" ± {std:.2g}"
        answer = "–" if math.isnan(value) else f"{value:.4g}{spread} {unit}".strip()
        table.add_row(formula, name, answer, "yes" if inside else "no", reason)
    console.print(table)
    console.print(f"files in {out}: {', '.join(OUTPUTS)}")
    if all(math.isnan(row[4]) for row in rows):
        raise InvalidStructureError(f"no crystal could be judged; the first because: {rows[0][8]}")
