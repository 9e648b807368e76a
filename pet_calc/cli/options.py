"""Options that verbs for static calculations share, and how such a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import resolved_options

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from pet_calc.workflows.relax import RelaxConfig

StructureArgument = Annotated[
    Path, typer.Argument(help="Structure file in any format that ASE reads; its last frame.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="Name or path of a potential; auto picks one for the elements; a,b,c is a committee.",
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Precision of the potential.  [default: float64]", show_default=False
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", help="cpu or cuda; by default the GPU if there is one.", show_default=False
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the files of an earlier run there.")
]

ReportOption = Annotated[
    bool,
    typer.Option(
        "--report/--no-report", help="Also write report.html, a page with a 3-D view of it all."
    ),
]


def page(out: Path, wanted: bool, console: Console) -> None:
    """The report of a finished run, or how to get one.

    `require_viewer` must have been called before the run where it is wanted.
    """
    if not wanted:
        console.print(f"a page of this run: pet-calc report {out}", highlight=False, markup=False)
        return
    from pet_calc.workflows.progress import pulsing
    from pet_calc.workflows.report import report_folder

    with pulsing("report"):
        path = report_folder(out)
    console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", highlight=False, markup=False)


def static_precision(dtype: str | None, calculator: str | None) -> str | None:
    """Precision of a static calculation: float64, or that of another calculator."""
    return dtype or (None if calculator else "float64")


def begin_run(
    context: typer.Context,
    names: Sequence[str],
    structures: Sequence[Atoms],
    calculator: Any,
    config: RelaxConfig,
) -> dict[str, Any]:
    """Check the structures, then write the settings into the folder and return the provenance.

    Parameters
    ----------
    context : typer.Context
        Of the verb, whose options have an `out`.
    names : sequence of str
        Files of an earlier run, removed when nothing stands in the way any more.
    structures, calculator, config
        What is going to be computed.
    """
    from pet_calc.io.runs.outputs import clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.relax.many import settle_model, starting_problem

    settle_model(structures, calculator)
    for atoms in structures:
        problem = starting_problem(atoms, calculator, config)
        if problem is not None:
            raise problem
    verb = context.info_name
    options = resolved_options(context)
    options["dtype"] = static_precision(options.get("dtype"), options.get("calculator"))
    origin = provenance(calculator, packages=("ase", "numpy", "torch", "matscipy", "spglib"))
    clear_folder(context.params["out"], names)
    path = context.params["out"] / f"{verb}.toml"
    path.write_text(
        settings_toml(f"settings of pet-calc {verb}", options, origin), encoding="utf-8"
    )
    return origin


def write_frames(path: Path, frames: Sequence[Atoms], origin: dict[str, Any]) -> None:
    """Frames with their results and provenance as extended XYZ in full precision."""
    from pet_calc.io.runs.provenance import stamp
    from pet_calc.io.structures.extxyz import extxyz_frame

    text = ""
    for frame in frames:
        copy = frame.copy()
        copy.calc = frame.calc
        stamp(copy, origin)
        text += extxyz_frame(copy)
    path.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with all digits."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
