"""``pet-calc neb``: barrier between two minima."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pet_calc.cli.inputs import read_structures
from pet_calc.cli.options import ConfigOption, Potential, ReportedFolder
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run, check_start
from pet_calc.workflows.mechanics.config import NebConfig

if TYPE_CHECKING:
    from rich.table import Table

OUTPUTS = ("neb.json", "neb.csv", "neb.extxyz", "neb.png")


@dataclass(frozen=True)
class EndPoints:
    """The two minima.

    Attributes
    ----------
    initial : Path
        First end point.
    final : Path
        Last end point, atoms in the same order.
    index : str
        Frame of each file (ASE index); -1 is the last.
    """

    panel: ClassVar[str] = "Structure"

    initial: Path = field(metadata={"argument": True, "file": "structure file"})
    final: Path = field(metadata={"argument": True, "file": "structure file"})
    index: str = "-1"


@options_of(out=Path("neb_out"))
def neb(
    context: typer.Context,
    ends: EndPoints,
    settings: Annotated[NebConfig, "Band"],
    potential: Potential,
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Minimum-energy path between two structures, by a nudged elastic band with a climbing image.

    For example:

      pet-calc neb start.xyz end.xyz --images 7

    Writes neb.toml (the settings in full), neb.json, neb.csv, neb.extxyz and neb.png. The exit
    code is 1 if the band did not converge.
    """
    run = Run(context, folder, OUTPUTS)
    first, last = (read_structures(p, ends.index)[-1] for p in (ends.initial, ends.final))
    from pet_calc.workflows.mechanics import minimum_energy_path, write_neb
    from pet_calc.workflows.mechanics.neb import require_pair
    from pet_calc.workflows.progress import ProgressBar
    from pet_calc.workflows.relax import RelaxConfig

    require_pair(first, last)
    calculator = potential.load()
    check_start([first, last], calculator, RelaxConfig(fmax=settings.end_fmax))
    origin = run.begin(calculator)
    first.calc = calculator
    with ProgressBar() as progress:
        result = minimum_energy_path(first, last, settings, on_progress=progress)
    name = f"{result.frames[0].get_chemical_formula()}, {calculator.name}"
    write_neb(result, run.out, title=name, origin=origin)
    run.console.print(barrier_table(result, name, run))
    run.page()
    raise typer.Exit(0 if result.converged else 1)


def barrier_table(result: Any, name: str, run: Run) -> Table:
    """The closing table."""
    from rich.table import Table

    table = Table(title=f"Minimum-energy path of {name}", show_header=False)
    table.add_row("barrier", f"{result.barrier:.4f} eV")
    table.add_row("reverse barrier", f"{result.reverse_barrier:.4f} eV")
    table.add_row("reaction energy", f"{result.reaction_energy:.4f} eV")
    outcome = "converged" if result.converged else "NOT converged"
    table.add_row("band", f"{outcome} in {result.steps} steps, {result.fmax:.4f} eV/Å")
    table.add_row(f"files in {run.out}", run.files())
    return table
