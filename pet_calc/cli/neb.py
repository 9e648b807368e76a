"""``pet-calc neb``: barrier between two minima."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    from pet_calc.workflows.mechanics.figures import neb_figure
    from pet_calc.workflows.mechanics.neb import minimum_energy_path, neb_summary, require_pair
    from pet_calc.workflows.plots import save_figure
    from pet_calc.workflows.relax import RelaxConfig

    require_pair(first, last)
    calculator = potential.load()
    check_start([first, last], calculator, RelaxConfig(fmax=settings.end_fmax))
    origin = run.begin(calculator)
    with band_bar(settings.steps) as on_step:
        result = minimum_energy_path(first, last, calculator, settings, on_step=on_step)
    run.write_json("neb.json", neb_summary(result))
    images = enumerate(zip(result.path, result.energies, strict=True))
    run.write_csv(
        "neb.csv",
        ("image", "path_A", "energy_eV"),
        [(k, float(s), float(e)) for k, (s, e) in images],
    )
    run.write_frames("neb.extxyz", result.frames)
    name = f"{result.frames[0].get_chemical_formula()}, {calculator.name}"
    save_figure(neb_figure(result, title=name), run.out / "neb.png", origin)
    run.console.print(barrier_table(result, name, run))
    run.page()
    raise typer.Exit(0 if result.converged else 1)


@contextmanager
def band_bar(steps: int) -> Iterator[Callable[[int, float, float], None]]:
    """A bar over the steps of the band, and lines where there is no terminal."""
    from rich.progress import MofNCompleteColumn, TextColumn

    from pet_calc.workflows.progress import progress_bar

    bar = progress_bar(MofNCompleteColumn(), TextColumn("{task.fields[state]}"), transient=False)
    task = bar.add_task("band", total=steps, state="end points")

    def on_step(step: int, force: float, barrier: float) -> None:
        state = f"largest force {force:.3f} eV/Å, barrier {barrier:.3f} eV"
        bar.update(task, completed=step, state=state)
        if not bar.console.is_terminal and step % max(1, steps // 10) == 0:
            bar.console.print(f"step {step}: {state}", highlight=False)

    with bar:
        yield on_step


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
