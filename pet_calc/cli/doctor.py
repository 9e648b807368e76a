"""``pet-calc doctor``: whether a potential is sound on the user's own structure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pet_calc.cli.options import ConfigOption, Potential, Precision, Structure
from pet_calc.cli.options_of import options_of
from pet_calc.doctor.config import DoctorConfig

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.doctor import Report

COLORS = {"pass": "green", "warning": "yellow", "fail": "bold red", "info": "cyan"}


@dataclass(frozen=True)
class Record:
    """Where the findings go.

    Attributes
    ----------
    json : Path, optional
        File for the findings.
    overwrite : bool
        Replace that file if it exists.
    """

    panel: ClassVar[str] = "Output"

    json: Path | None = None
    overwrite: bool = field(default=False, metadata={"flag": "--overwrite"})


@options_of()
def doctor(
    structure: Structure,
    settings: Annotated[DoctorConfig, "Checks"],
    potential: Potential,
    record: Record,
    config: ConfigOption = None,
) -> None:
    """Examine a potential, or any ASE calculator, on your own structure.

    For example:

      pet-calc doctor water.xyz

      pet-calc doctor POSCAR --quick --json doctor.json

      pet-calc doctor POSCAR --calculator ase.calculators.emt:EMT

    Exit code: 0 if every check passes, 3 if there are warnings, 1 if a check fails.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    from pet_calc.io.runs.outputs import claim_folder

    if record.json is not None:
        claim_folder(record.json.parent, (record.json.name,), overwrite=record.overwrite)
    atoms = structure.read()
    from pet_calc.doctor import examine
    from pet_calc.io.models.files import write_atomically
    from pet_calc.io.runs.provenance import provenance
    from pet_calc.workflows.progress import progress_bar

    calculator = potential.load("float32")
    twin = None
    if potential.calculator is None:
        other: Precision = "float32" if potential.dtype == "float64" else "float64"
        twin = replace(potential, dtype=other).load()
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("checks", total=None)
        report = examine(
            atoms,
            calculator,
            twin=twin,
            settings=settings,
            on_check=lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    origin = provenance(calculator, seed=settings.seed)
    formula = atoms.get_chemical_formula(empirical=len(atoms) > 50)
    name = origin.get("model", origin["calculator"])
    title = f"{name} on {structure.structure.name} ({formula}, {len(atoms)} atoms)"
    console = Console()
    console.print(report_table(report, title))
    console.print(summary(report), highlight=False)
    if record.json is not None:
        content = {
            "structure": {
                "file": str(structure.structure), "formula": formula, "n_atoms": len(atoms)
            },
            "settings": asdict(settings),
            "provenance": origin,
            **report.to_dict(),
        }  # fmt: skip
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(record.json, (text + "\n").encode())
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
