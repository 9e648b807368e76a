"""``pet-calc doctor``: whether a potential is sound on the user's own structure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import (
    CalculatorOption,
    ConfigOption,
    DirectOption,
    EcseOption,
    VariantOption,
    make_calculator,
    read_structure,
)
from pet_calc.cli.options import DeviceOption, ModelOption

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.doctor import Report

COLORS = {"pass": "green", "warning": "yellow", "fail": "bold red", "info": "cyan"}


class Precision(StrEnum):
    """Floating-point types of the potential."""

    float32 = "float32"
    float64 = "float64"


def doctor(
    structure: Annotated[
        Path,
        typer.Argument(help="Structure file in any format that ASE reads; its last frame is used."),
    ],
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(
            help="Precision that you run in; compared with the other one.  [default: float32]",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer samples and no dynamics: seconds.")
    ] = False,
    nve_ps: Annotated[float, typer.Option(help="Length of the run at constant energy, ps.")] = 1.0,
    nve_seconds: Annotated[float, typer.Option(help="Wall time after which that run ends.")] = 45.0,
    temperature: Annotated[float, typer.Option(help="Of its initial velocities, K.")] = 300.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random directions.")] = 0,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the findings to this file, too.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace that file if it exists.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Examine a potential, or any ASE calculator, on your own structure.

    For example:

      pet-calc doctor water.xyz

      pet-calc doctor POSCAR --quick --json doctor.json

      pet-calc doctor POSCAR --calculator ase.calculators.emt:EMT

    Exit code: 0 if every check passes, 3 if there are warnings, 1 if a check fails.
    """
    import json as json_module

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    from pet_calc.doctor import DoctorConfig, examine
    from pet_calc.io.models.weights import write_atomically
    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import provenance
    from pet_calc.workflows.progress import progress_bar

    console = Console()
    settings = DoctorConfig(
        quick=quick,
        picoseconds=nve_ps,
        seconds=nve_seconds,
        temperature=temperature,
        seed=seed,
    )
    if json is not None:
        claim_folder(json.parent, (json.name,), overwrite=overwrite)
    atoms = read_structure(structure)
    chosen = None if dtype is None and calculator else (dtype or Precision.float32).value
    options = (ecse, variant, non_conservative)
    potential = make_calculator(model, calculator, device, chosen, *options)
    twin = None
    if calculator is None:
        other = "float32" if chosen == "float64" else "float64"
        twin = make_calculator(model, None, device, other, *options)
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("checks", total=None)
        report = examine(
            atoms,
            potential,
            twin=twin,
            settings=settings,
            on_check=lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    origin = provenance(potential, seed=seed)
    name = origin.get("model", origin["calculator"])
    formula = atoms.get_chemical_formula(empirical=len(atoms) > 50)
    title = f"{name} on {structure.name} ({formula}, {len(atoms)} atoms)"
    console.print(report_table(report, title))
    console.print(summary(report), highlight=False)
    if json is not None:
        record = {
            "structure": {"file": str(structure), "formula": formula, "n_atoms": len(atoms)},
            "settings": {f: getattr(settings, f) for f in settings.__dataclass_fields__},
            "provenance": origin,
            **report.to_dict(),
        }
        text = json_module.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(json, (text + "\n").encode())
    raise typer.Exit(report.exit_code)


def report_table(report: Report, title: str) -> Table:
    """One line per check: verdict, what was found, and the rule."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in ("check", "verdict", "found", "passes if"):
        table.add_column(column, overflow="fold", no_wrap=column == "verdict")
    for f in report.findings:
        style = COLORS.get(str(f.verdict), "dim")
        table.add_row(f.check, Text(str(f.verdict), style=style), Text(f.found), Text(f.rule))
    return table


def summary(report: Report) -> Any:
    """The overall verdict and what it rests on."""
    from rich.text import Text

    counts = {v: sum(str(f.verdict) == v for f in report.findings) for v in ("fail", "warning")}
    parts = [f"{n} {v}{'s' if n > 1 else ''}" for v, n in counts.items() if n]
    verdict = str(report.verdict)
    return Text(f"verdict: {verdict}" + (f" ({', '.join(parts)})" if parts else ""),
                style=COLORS[verdict])  # fmt: skip
