"""``pet-calc elastic``: elastic constants of a crystal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from pet_calc.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelOption,
    OverwriteOption,
    StructureArgument,
    begin_run,
    static_precision,
    write_csv,
    write_frames,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.workflows.mechanics.elastic import ElasticConstants

OUTPUTS = ("elastic.toml", "elastic.json", "elastic.csv", "elastic.extxyz")

#: Residual stress in GPa above which the constants are those of a crystal under load.
LOADED = 0.1


def elastic(
    context: typer.Context,
    structure: StructureArgument,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    strain: Annotated[float, typer.Option(help="Largest strain, of either sign.")] = 0.01,
    points: Annotated[int, typer.Option(help="Strains for each of the six components.")] = 5,
    relax_ions: Annotated[
        bool, typer.Option("--relax-ions/--clamp-ions", help="Let the ions follow the strain.")
    ] = True,
    relax: Annotated[
        bool, typer.Option("--relax/--no-relax", help="Relax ions and cell first.")
    ] = True,
    symmetrize: Annotated[
        bool, typer.Option("--symmetrize/--as-fitted", help="Impose the point group.")
    ] = True,
    symprec: Annotated[
        float, typer.Option(help="Distance within which the point group is looked for, Å.")
    ] = 1e-2,
    fmax: Annotated[float, typer.Option(help="Largest force of the relaxations, eV/Å.")] = 1e-4,
    steps: Annotated[int, typer.Option(min=0, help="Most steps of each relaxation.")] = 1000,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("elastic_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Elastic constants of a crystal, its moduli and its mechanical stability.

    For example:

      pet-calc elastic POSCAR --strain 0.01

    The tensor is in the axes of the structure file. Writes elastic.toml (the settings in full),
    elastic.json, elastic.csv and elastic.extxyz (the crystal).
    """
    import numpy as np
    from rich.console import Console

    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import json_text
    from pet_calc.workflows.mechanics.config import ElasticConfig
    from pet_calc.workflows.mechanics.elastic import (
        PATTERNS,
        VOIGT,
        elastic_constants,
        elastic_summary,
        require_matscipy,
    )
    from pet_calc.workflows.relax import RelaxConfig
    from pet_calc.workflows.relax.progress import RelaxProgress
    from pet_calc.workflows.relax.symmetry import require_spglib

    console = Console()
    settings = ElasticConfig(
        strain, points, relax, relax_ions, symmetrize, symprec, fmax=fmax, steps=steps
    )
    require_matscipy()
    if symmetrize:
        require_spglib("the point group")
    claim_folder(out, OUTPUTS, overwrite=overwrite)
    atoms = read_structure(structure)
    atoms.calc = make_calculator(
        model,
        calculator,
        device,
        static_precision(dtype, calculator),
        ecse,
        variant,
        non_conservative,
    )
    first = RelaxConfig(cell="free", fmax=fmax, steps=steps)
    origin = begin_run(context, OUTPUTS, [atoms], atoms.calc, first)
    with RelaxProgress(PATTERNS * points, name="strains", moves=relax_ions) as progress:
        result = elastic_constants(
            atoms, settings, on_result=progress.on_result, on_step=progress.on_step
        )
    (out / "elastic.json").write_text(json_text(elastic_summary(result), origin), encoding="utf-8")
    axes = ["".join("xyz"[k] for k in pair) for pair in VOIGT]
    write_csv(
        out / "elastic.csv",
        ("stress", "strain", "C_GPa", "error_GPa", "before_symmetrization_GPa"),
        [
            (axes[i], axes[j], *(float(m[i, j]) for m in (result.C, result.C_error, result.C_raw)))
            for i in range(6)
            for j in range(6)
        ],
    )
    write_frames(out / "elastic.extxyz", [result.crystal], origin)
    name = f"{result.crystal.get_chemical_formula()} {result.space_group}, {atoms.calc.name}"
    console.print(tensor_table(result, name))
    console.print(moduli_table(result, out))
    largest = float(np.abs(result.stress).max())
    if largest > LOADED:
        console.print(
            f"The crystal is under a stress of {largest:.2f} GPa: these are not the constants of "
            "the free crystal. Leave out --no-relax.",
            style="yellow",
        )
    if not result.stable:
        console.print(
            f"The crystal is elastically unstable: the lowest eigenvalue of the tensor is "
            f"{result.eigenvalues[0]:.2f} GPa.",
            style="yellow",
        )


def tensor_table(result: ElasticConstants, name: str) -> Table:
    """The tensor; its errors are in the files."""
    from rich.table import Table

    from pet_calc.workflows.mechanics.elastic import VOIGT

    error = f"standard errors up to {result.C_error.max():.1g} GPa"
    table = Table(title=f"C (GPa) of {name}", caption=error)
    axes = ["".join("xyz"[k] for k in pair) for pair in VOIGT]
    for label in ("", *axes):
        table.add_column(label, justify="right")
    for i in range(6):
        row = [f"{value:.2f}" if abs(value) >= 5e-3 else "0" for value in result.C[i]]
        table.add_row(axes[i], *row)
    return table


def moduli_table(result: ElasticConstants, out: Path) -> Table:
    """Moduli, stability and how symmetric the potential is."""
    from rich.table import Table

    table = Table(title="Moduli", show_header=False)
    for name, value in result.moduli.items():
        unit = "" if name in ("poisson_Hill", "anisotropy") else " GPa"
        table.add_row(name, f"{value:.3f} ± {result.moduli_error[name]:.1g}{unit}")
    stable = "stable" if result.stable else "UNSTABLE"
    table.add_row("lowest eigenvalue of C", f"{result.eigenvalues[0]:.3f} GPa: {stable}")
    table.add_row("changed by the point group", f"at most {result.asymmetry:.2g} GPa")
    table.add_row(f"files in {out}", "\n".join(OUTPUTS))
    return table
