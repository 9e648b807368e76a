"""``pet-calc neb``: barrier between two minima."""

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
    begin_run,
    static_precision,
    write_csv,
    write_frames,
)

OUTPUTS = ("neb.toml", "neb.json", "neb.csv", "neb.extxyz", "neb.png")


class Interpolation(StrEnum):
    """First path."""

    idpp = "idpp"
    linear = "linear"


def neb(
    context: typer.Context,
    initial: Annotated[Path, typer.Argument(help="First end point; its last frame.")],
    final: Annotated[Path, typer.Argument(help="Last end point, atoms in the same order.")],
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    images: Annotated[int, typer.Option(help="Images between the end points.")] = 7,
    fmax: Annotated[float, typer.Option(help="Largest force of the band, eV/Å.")] = 0.03,
    steps: Annotated[int, typer.Option(min=0, help="Most steps of the band.")] = 500,
    spring: Annotated[float, typer.Option(help="Spring constant, eV/Å².")] = 0.1,
    climb: Annotated[
        bool, typer.Option("--climb/--no-climb", help="Let the highest image climb.")
    ] = True,
    interpolation: Annotated[Interpolation, typer.Option(help="First path.")] = Interpolation.idpp,
    relax_ends: Annotated[
        bool, typer.Option("--relax/--no-relax", help="Relax the end points first.")
    ] = True,
    end_fmax: Annotated[float, typer.Option(help="Largest force at the ends, eV/Å.")] = 0.01,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("neb_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Minimum-energy path between two structures, by a nudged elastic band with a climbing image.

    For example:

      pet-calc neb start.xyz end.xyz --images 7

    Writes neb.toml (the settings in full), neb.json, neb.csv, neb.extxyz and neb.png. The exit
    code is 1 if the band did not converge.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TextColumn
    from rich.table import Table

    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import json_text
    from pet_calc.workflows.mechanics.config import NebConfig
    from pet_calc.workflows.mechanics.figures import neb_figure
    from pet_calc.workflows.mechanics.neb import (
        minimum_energy_path,
        neb_summary,
        require_pair,
    )
    from pet_calc.workflows.plots import save_figure
    from pet_calc.workflows.progress import progress_bar
    from pet_calc.workflows.relax import RelaxConfig

    console = Console()
    settings = NebConfig(
        images, fmax, steps, spring, climb, interpolation.value, relax_ends, end_fmax
    )
    claim_folder(out, OUTPUTS, overwrite=overwrite)
    first, last = read_structure(initial), read_structure(final)
    require_pair(first, last)
    potential = make_calculator(
        model,
        calculator,
        device,
        static_precision(dtype, calculator),
        ecse,
        variant,
        non_conservative,
    )
    origin = begin_run(context, OUTPUTS, [first, last], potential, RelaxConfig(fmax=end_fmax))
    bar = progress_bar(MofNCompleteColumn(), TextColumn("{task.fields[state]}"), transient=False)
    task = bar.add_task("band", total=steps, state="end points")

    def on_step(step: int, force: float, barrier: float) -> None:
        state = f"largest force {force:.3f} eV/Å, barrier {barrier:.3f} eV"
        bar.update(task, completed=step, state=state)
        if not bar.console.is_terminal and step % max(1, steps // 10) == 0:
            bar.console.print(f"step {step}: {state}", highlight=False)

    with bar:
        result = minimum_energy_path(first, last, potential, settings, on_step=on_step)
    (out / "neb.json").write_text(json_text(neb_summary(result), origin), encoding="utf-8")
    write_csv(
        out / "neb.csv",
        ("image", "path_A", "energy_eV"),
        [
            (k, float(s), float(e))
            for k, (s, e) in enumerate(zip(result.path, result.energies, strict=True))
        ],
    )
    write_frames(out / "neb.extxyz", result.frames, origin)
    name = f"{result.frames[0].get_chemical_formula()}, {potential.name}"
    save_figure(neb_figure(result, title=name), out / "neb.png", origin)
    table = Table(title=f"Minimum-energy path of {name}", show_header=False)
    table.add_row("barrier", f"{result.barrier:.4f} eV")
    table.add_row("reverse barrier", f"{result.reverse_barrier:.4f} eV")
    table.add_row("reaction energy", f"{result.reaction_energy:.4f} eV")
    outcome = "converged" if result.converged else "NOT converged"
    table.add_row("band", f"{outcome} in {result.steps} steps, {result.fmax:.4f} eV/Å")
    table.add_row(f"files in {out}", "\n".join(OUTPUTS))
    console.print(table)
    raise typer.Exit(0 if result.converged else 1)
