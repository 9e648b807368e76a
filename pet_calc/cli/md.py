"""``pet-calc md``: molecular dynamics from a structure file or a built-in system."""

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
    GuardOption,
    VariantOption,
    import_named,
    make_calculator,
    read_guards,
    read_structure,
)
from pet_calc.cli.md_results import (
    FIGURE,
    RDF_TABLE,
    SETTINGS,
    analyse_water,
    draw,
    summary,
    write_rdfs,
)
from pet_calc.cli.options import DeviceOption, ModelOption, ReportOption, page

if TYPE_CHECKING:
    from ase import Atoms

    from pet_calc.workflows.md import MDConfig


class EnsembleChoice(StrEnum):
    """Ensembles of :class:`pet_calc.workflows.md.MDConfig`."""

    nve = "nve"
    nvt_langevin = "nvt-langevin"
    nvt_bussi = "nvt-bussi"
    nvt_nhc = "nvt-nhc"
    npt_mtk_iso = "npt-mtk-iso"
    npt_mtk_full = "npt-mtk-full"
    npt_scr = "npt-scr"


class BuiltInSystem(StrEnum):
    """Structures that can be built without a file."""

    water = "water"


class Precision(StrEnum):
    """Floating-point types of the potential."""

    float32 = "float32"
    float64 = "float64"


def md(
    context: typer.Context,
    structure: Annotated[
        Path | None,
        typer.Argument(
            help="Structure file in any format that ASE reads; its last frame is used.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        BuiltInSystem | None,
        typer.Option(help="Build a system instead of reading a file.", show_default=False),
    ] = None,
    molecules: Annotated[
        int, typer.Option(min=1, help="Molecules of the built system (1 g/cm³).")
    ] = 64,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    ensemble: Annotated[
        EnsembleChoice, typer.Option(help="Ensemble, thermostat and barostat.")
    ] = EnsembleChoice.nvt_langevin,
    timestep: Annotated[float, typer.Option(help="Timestep, fs.")] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="Temperature of thermostat and initial velocities, K.")
    ] = 300.0,
    temperature_end: Annotated[
        float | None,
        typer.Option(help="Move the temperature linearly to this, K.", show_default=False),
    ] = None,
    pressure: Annotated[
        float, typer.Option(help="Pressure of the barostat, GPa; 1 bar is 1e-4.")
    ] = 1e-4,
    pressure_end: Annotated[
        float | None,
        typer.Option(help="Move the pressure linearly to this, GPa.", show_default=False),
    ] = None,
    ramp_steps: Annotated[
        int | None,
        typer.Option(help="Steps that a ramp takes; by default all.", show_default=False),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Number of steps, those before --resume included.")
    ] = 2000,
    tau: Annotated[
        float | None,
        typer.Option(
            help="Time constant of the thermostat, fs (Langevin: 1/friction).  [default: 100]",
            show_default=False,
        ),
    ] = None,
    friction: Annotated[
        float | None,
        typer.Option(help="Langevin friction, 1/ps, instead of --tau.", show_default=False),
    ] = None,
    pressure_tau: Annotated[
        float, typer.Option(help="Time constant of the barostat, fs.")
    ] = 1000.0,
    compressibility: Annotated[
        float, typer.Option(help="Estimate for npt-scr, 1/GPa: water 0.46, copper 0.007.")
    ] = 0.05,
    swap_interval: Annotated[
        int,
        typer.Option(min=0, help="Steps between rounds of swaps of unlike atoms; 0 for none."),
    ] = 0,
    swap_attempts: Annotated[int, typer.Option(min=1, help="Swaps that each round tries.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the built system, the velocities and the noise.")
    ] = 0,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start from the velocities in the file.")
    ] = False,
    interval: Annotated[int, typer.Option(min=1, help="Steps between trajectory frames.")] = 20,
    log_interval: Annotated[int, typer.Option(min=1, help="Steps between rows of the log.")] = 5,
    checkpoint_interval: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints.")
    ] = 1000,
    discard: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Leading part of the run left out of averages."),
    ] = 0.2,
    on_step: Annotated[
        str | None,
        typer.Option(
            help="Call module:function with atoms and sample during the run.", show_default=False
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Steps between calls of --on-step.")] = 1,
    dtype: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of the potential; float64 for strict NVE.  [default: float32]",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Capture a step of a plain PET on a GPU and replay it: faster for small systems.",
        ),
    ] = False,
    guard: GuardOption = [],  # noqa: B006
    report: ReportOption = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("md_out"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier run there.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run molecular dynamics and draw its temperature, energies and, for water, g_OO(r).

    For example:

      pet-calc md --system water --molecules 64 --steps 2000

      pet-calc md start.xyz --ensemble nve --dtype float64 --timestep 0.5 --out nve_run

      pet-calc md alloy.cif --ensemble npt-mtk-iso --temperature 300 --temperature-end 2500
      --timestep 2 --swap-interval 10 --steps 50000 --out heating

      pet-calc md --config heating/md.toml --resume --steps 100000

    Writes md.toml (the settings in full), trajectory.traj, log.csv, checkpoint.npz, md.png and, for
    water, rdf.csv. After an interruption, kill -9 included, the same command with --resume goes on
    from the last checkpoint as if nothing had happened.
    """
    from rich.console import Console

    from pet_calc.io.models.weights import write_atomically
    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.guards import check_structure, require_covered
    from pet_calc.workflows.md import (
        OUTPUT_FILES,
        MDConfig,
        MDProgress,
        MDSample,
        Observer,
        run_md,
    )
    from pet_calc.workflows.md.checkpoint import CHECKPOINT, load_checkpoint
    from pet_calc.workflows.observables.water import is_water
    from pet_calc.workflows.progress import pulsing
    from pet_calc.workflows.report import REPORT, require_viewer

    if (structure is None) == (system is None):
        raise typer.BadParameter(
            "give either a STRUCTURE file or --system water, or --config with the md.toml of a run",
            param_hint="STRUCTURE / --system",
        )
    if resume and overwrite:
        raise typer.BadParameter("--overwrite replaces the run to continue", param_hint="--resume")
    console = Console()
    settings = MDConfig(
        ensemble=ensemble.value,
        timestep=timestep,
        temperature=temperature,
        temperature_end=temperature_end,
        pressure=pressure,
        pressure_end=pressure_end,
        ramp_steps=ramp_steps,
        steps=steps,
        tau=thermostat_time(tau, friction, ensemble),
        pressure_tau=pressure_tau,
        compressibility=compressibility,
        swap_interval=swap_interval,
        swap_attempts=swap_attempts,
        seed=seed,
        initial_velocities="keep" if keep_velocities else "maxwell-boltzmann",
        frame_interval=interval,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        guards=read_guards(guard),
    )
    observers = [] if on_step is None else [Observer(import_named(on_step, "--on-step"), every)]
    source = str(structure) if structure is not None else f"{molecules} water molecules, 1 g/cm³"
    results = (SETTINGS, FIGURE, RDF_TABLE, REPORT)
    if report:
        require_viewer()
    claim_folder(out, (*OUTPUT_FILES, *results), overwrite=overwrite or resume)
    atoms = read_structure(structure) if structure is not None else build_water(molecules, seed)
    console.print(
        f"{source}: {atoms.get_chemical_formula(empirical=len(atoms) > 50)}, {len(atoms)} atoms",
        highlight=False,
    )
    precision = None if dtype is None else dtype.value
    atoms.calc = make_calculator(
        model, calculator, device, precision, ecse, variant, non_conservative, cuda_graph
    )
    check_structure(atoms)
    require_covered(atoms)  # with "auto", a potential is chosen here
    potential = str(getattr(atoms.calc, "name", model))
    console.print(f"potential: [bold]{potential}[/bold]", highlight=False)

    origin = provenance(atoms.calc, seed=seed)
    with MDProgress(settings, len(atoms)) as progress:
        recorded = False

        def record(sample: MDSample) -> None:
            """The settings replace those of an earlier run once the new one is under way."""
            nonlocal recorded
            if not recorded:
                recorded = True
                flags = resolved_flags(context, settings)
                # a ramp keeps the length with which it began
                flags["ramp_steps"] = load_checkpoint(out / CHECKPOINT).config["ramp_steps"]
                if calculator is None:
                    flags["model"] = potential if model == "auto" else model
                    flags["dtype"] = getattr(atoms.calc, "dtype", precision)
                clear_folder(out, results)
                text = settings_toml("settings of pet-calc md", flags, origin)
                write_atomically(out / SETTINGS, text.encode())
            progress(sample)

        result = run_md(
            atoms,
            settings,
            out,
            overwrite=overwrite,
            resume=resume,
            on_step=record,
            observers=observers,
        )

    water = None
    with pulsing("analysis"):
        if is_water(result.atoms) and steps > 0:
            water = analyse_water(result, discard)
            write_rdfs(water, out / RDF_TABLE)
        title = f"{potential}, {settings.ensemble}"
        draw(result, water, out / FIGURE, discard=discard, title=title, origin=origin)
    console.print(summary(result, water, discard, out))
    page(out, report, console)


def resolved_flags(context: typer.Context, settings: MDConfig) -> dict[str, Any]:
    """All flags as they hold, for ``--config``; a friction is told as the time that it means."""
    from dataclasses import asdict

    left_out = ("config", "resume", "overwrite", "friction")
    flags = {k: getattr(v, "value", v) for k, v in context.params.items() if k not in left_out}
    flags["tau"] = settings.tau
    flags["out"] = str(flags["out"])
    flags["guard"] = [f"{k}={v}" for k, v in asdict(settings.guards).items() if v is not None]
    return flags


def thermostat_time(tau: float | None, friction: float | None, ensemble: EnsembleChoice) -> float:
    """Time constant in fs from `tau` (fs) or `friction` (1/ps); 100 fs where neither is given."""
    if friction is None:
        return 100.0 if tau is None else tau
    if tau is not None:
        raise typer.BadParameter(
            "--tau and --friction say the same thing; give one", param_hint="--friction"
        )
    if ensemble is not EnsembleChoice.nvt_langevin:
        raise typer.BadParameter(
            f"only nvt-langevin has a friction, not {ensemble.value}; use --tau",
            param_hint="--friction",
        )
    if friction <= 0:
        raise typer.BadParameter(f"must be positive, got {friction}", param_hint="--friction")
    return 1000.0 / friction


def build_water(molecules: int, seed: int) -> Atoms:
    """The built-in water box."""
    from pet_calc.workflows.progress import pulsing
    from pet_calc.workflows.water_box import water_box

    with pulsing("building the water box"):
        return water_box(molecules, density=1.0, seed=seed)
