"""``pet-calc eos``: equation of state and bulk modulus of a crystal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_calc.cli.options import ConfigOption, Potential, ReportedFolder, Structure
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run, check_start
from pet_calc.workflows.mechanics.config import EosConfig

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.workflows.mechanics.eos import BirchMurnaghan

OUTPUTS = ("eos.json", "eos.csv", "eos.extxyz", "eos.png")


@options_of(out=Path("eos_out"))
def eos(
    context: typer.Context,
    structure: Structure,
    settings: Annotated[EosConfig, "Volumes and relaxation"],
    potential: Potential,
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Equation of state: energy against volume, fitted by Birch and Murnaghan.

    For example:

      pet-calc eos POSCAR --span 0.94,1.06

    Writes eos.toml (the settings in full), eos.json, eos.csv, eos.extxyz and eos.png.
    """
    run = Run(context, folder, OUTPUTS)
    atoms = structure.read()
    from pet_calc.workflows.mechanics import equation_of_state, write_eos
    from pet_calc.workflows.progress import ProgressBar
    from pet_calc.workflows.relax import RelaxConfig

    atoms.calc = potential.load()
    first = RelaxConfig(
        cell="free", fmax=settings.fmax, steps=settings.steps, guards=settings.guards
    )
    check_start([atoms], atoms.calc, first)
    origin = run.begin(atoms.calc, packages=("ase", "numpy", "scipy", "torch"))
    with ProgressBar() as progress:
        result = equation_of_state(atoms, settings, on_progress=progress)
    name = f"{atoms.get_chemical_formula()}, {atoms.calc.name}"
    write_eos(result, run.out, title=name, origin=origin)
    run.console.print(fit_table(result.fit, len(atoms), name, run))
    run.page()


def fit_table(fit: BirchMurnaghan, n: int, name: str, run: Run) -> Table:
    """The closing table, per atom of `n`."""
    from rich.table import Table

    table = Table(title=f"Equation of state of {name}", show_header=False)
    table.add_row("V0", f"{fit.V0 / n:.5f} ± {fit.V0_error / n:.1g} Å³/atom")
    table.add_row("E0", f"{fit.E0 / n:.6f} eV/atom")
    table.add_row("B0", f"{fit.B0:.3f} ± {fit.B0_error:.1g} GPa")
    table.add_row("B0'", f"{fit.B0_prime:.3f} ± {fit.B0_prime_error:.1g}")
    table.add_row("residuals", f"{1e3 * fit.rms / n:.2g} meV/atom")
    table.add_row(f"files in {run.out}", run.files())
    return table
