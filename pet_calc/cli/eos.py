"""``pet-calc eos``: equation of state and bulk modulus of a crystal."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

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

OUTPUTS = ("eos.toml", "eos.json", "eos.csv", "eos.extxyz", "eos.png")


class Moves(StrEnum):
    """What relaxes at each volume."""

    ions = "ions"
    shape = "shape"
    none = "none"


def eos(
    context: typer.Context,
    structure: StructureArgument,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    points: Annotated[int, typer.Option(help="Number of volumes.")] = 9,
    span: Annotated[
        float, typer.Option(help="Volumes from 1 - span to 1 + span of the start.")
    ] = 0.06,
    move: Annotated[
        Moves, typer.Option(help="What relaxes at each volume; shape: ions and shape of the cell.")
    ] = Moves.ions,
    relax: Annotated[
        bool, typer.Option("--relax/--no-relax", help="Relax ions and cell first.")
    ] = True,
    fmax: Annotated[float, typer.Option(help="Largest force of the relaxations, eV/Å.")] = 1e-3,
    steps: Annotated[int, typer.Option(min=0, help="Most steps of each relaxation.")] = 1000,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("eos_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Equation of state: energy against volume, fitted by Birch and Murnaghan.

    For example:

      pet-calc eos POSCAR --span 0.06

    Writes eos.toml (the settings in full), eos.json, eos.csv, eos.extxyz and eos.png.
    """
    from rich.console import Console
    from rich.table import Table

    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import json_text
    from pet_calc.workflows.mechanics.config import EosConfig
    from pet_calc.workflows.mechanics.eos import eos_summary, equation_of_state
    from pet_calc.workflows.mechanics.figures import eos_figure
    from pet_calc.workflows.plots import save_figure
    from pet_calc.workflows.relax import RelaxConfig
    from pet_calc.workflows.relax.progress import RelaxProgress

    console = Console()
    settings = EosConfig(
        points=points,
        span=(1 - span, 1 + span),
        relax=relax,
        relax_ions=move is not Moves.none,
        cell="shape" if move is Moves.shape else "fixed",
        fmax=fmax,
        steps=steps,
    )
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
    with RelaxProgress(points, name="volumes", moves=move is not Moves.none) as progress:
        result = equation_of_state(
            atoms, settings, on_result=progress.on_result, on_step=progress.on_step
        )
    summary = eos_summary(result)
    (out / "eos.json").write_text(json_text(summary, origin), encoding="utf-8")
    pressures, fitted = result.fit.pressure(result.volumes), result.fit.energy(result.volumes)
    write_csv(
        out / "eos.csv",
        ("volume_A3", "energy_eV", "fit_eV", "pressure_GPa"),
        [
            [float(x) for x in row]
            for row in zip(result.volumes, result.energies, fitted, pressures, strict=True)
        ],
    )
    write_frames(out / "eos.extxyz", result.frames, origin)
    name = f"{summary['formula']}, {atoms.calc.name}"
    save_figure(eos_figure(result, title=name), out / "eos.png", origin)
    fit = result.fit
    table = Table(title=f"Equation of state of {name}", show_header=False)
    n = len(atoms)
    table.add_row("V0", f"{fit.V0 / n:.5f} ± {fit.V0_error / n:.1g} Å³/atom")
    table.add_row("E0", f"{fit.E0 / n:.6f} eV/atom")
    table.add_row("B0", f"{fit.B0:.3f} ± {fit.B0_error:.1g} GPa")
    table.add_row("B0'", f"{fit.B0_prime:.3f} ± {fit.B0_prime_error:.1g}")
    table.add_row("residuals", f"{1e3 * fit.rms / n:.2g} meV/atom")
    table.add_row(f"files in {out}", "\n".join(OUTPUTS))
    console.print(table)
