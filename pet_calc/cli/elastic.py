"""``pet-calc elastic``: elastic constants of a crystal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_calc.cli.options import ConfigOption, Potential, ReportedFolder, Structure
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run, check_start
from pet_calc.workflows.mechanics.config import ElasticConfig

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.workflows.mechanics.elastic import ElasticConstants

OUTPUTS = ("elastic.json", "elastic.csv", "elastic.extxyz")
#: Residual stress in GPa above which the constants are those of a crystal under load.
LOADED = 0.1


@options_of(out=Path("elastic_out"))
def elastic(
    context: typer.Context,
    structure: Structure,
    settings: Annotated[ElasticConfig, "Strains and relaxation"],
    potential: Potential,
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Elastic constants of a crystal, its moduli and its mechanical stability.

    For example:

      pet-calc elastic POSCAR --strain 0.01

    The tensor is in the axes of the structure file. Writes elastic.toml (the settings in full),
    elastic.json, elastic.csv and elastic.extxyz (the crystal).
    """
    run = Run(context, folder, OUTPUTS)
    atoms = structure.read()
    from pet_calc.workflows.mechanics import elastic_constants, write_elastic
    from pet_calc.workflows.mechanics.elastic import require_matscipy
    from pet_calc.workflows.progress import ProgressBar
    from pet_calc.workflows.relax import RelaxConfig
    from pet_calc.workflows.relax.symmetry import require_spglib

    require_matscipy()
    if settings.symmetrize:
        require_spglib("the point group")
    atoms.calc = potential.load()
    first = RelaxConfig(
        cell="free", fmax=settings.fmax, steps=settings.steps, guards=settings.guards
    )
    check_start([atoms], atoms.calc, first)
    origin = run.begin(atoms.calc, packages=("ase", "numpy", "torch", "matscipy", "spglib"))
    with ProgressBar() as progress:
        result = elastic_constants(atoms, settings, on_progress=progress)
    write_elastic(result, run.out, origin=origin)
    name = f"{result.crystal.get_chemical_formula()} {result.space_group}, {atoms.calc.name}"
    run.console.print(tensor_table(result, name))
    run.console.print(moduli_table(result, run))
    run.warn(warnings(result))
    run.page()


def warnings(result: ElasticConstants) -> list[str]:
    """What a user should know before using the constants."""
    found = []
    largest = float(abs(result.stress).max())
    if largest > LOADED:
        found.append(
            f"the crystal is under a stress of {largest:.2f} GPa: these are not the constants of "
            "the free crystal. Leave out --no-relax."
        )
    if not result.stable:
        found.append(
            "the crystal is elastically unstable: the lowest eigenvalue of the tensor is "
            f"{result.eigenvalues[0]:.2f} GPa."
        )
    return found


def tensor_table(result: ElasticConstants, name: str) -> Table:
    """The tensor; its errors are in the files."""
    from rich.table import Table

    from pet_calc.workflows.mechanics.elastic import AXES

    error = f"standard errors up to {result.C_error.max():.1g} GPa"
    table = Table(title=f"C (GPa) of {name}", caption=error)
    for label in ("", *AXES):
        table.add_column(label, justify="right")
    for i in range(6):
        row = [f"{value:.2f}" if abs(value) >= 5e-3 else "0" for value in result.C[i]]
        table.add_row(AXES[i], *row)
    return table


def moduli_table(result: ElasticConstants, run: Run) -> Table:
    """Moduli, stability and how symmetric the potential is."""
    from rich.table import Table

    table = Table(title="Moduli", show_header=False)
    for name, value in result.moduli.items():
        unit = "" if name in ("poisson_Hill", "anisotropy") else " GPa"
        table.add_row(name, f"{value:.3f} ± {result.moduli_error[name]:.1g}{unit}")
    stable = "stable" if result.stable else "UNSTABLE"
    table.add_row("lowest eigenvalue of C", f"{result.eigenvalues[0]:.3f} GPa: {stable}")
    table.add_row("changed by the point group", f"at most {result.asymmetry:.2g} GPa")
    table.add_row(f"files in {run.out}", run.files())
    return table
