"""``pet-calc md``: molecular dynamics from a structure file or a built-in system."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import make_calculator, read_structure

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pet_calc.workflows.md import MDConfig, MDResult
    from pet_calc.workflows.observables import WaterStructure

SETTINGS, FIGURE, RDF_TABLE = "md.toml", "md.png", "rdf.csv"


class EnsembleChoice(StrEnum):
    """Ensembles of :class:`pet_calc.workflows.md.MDConfig`."""

    nve = "nve"
    nvt_langevin = "nvt-langevin"
    nvt_bussi = "nvt-bussi"


class BuiltInSystem(StrEnum):
    """Structures that can be built without a file."""

    water = "water"


class Precision(StrEnum):
    """Floating-point types of the potential."""

    float32 = "float32"
    float64 = "float64"


def md(
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
    model: Annotated[
        str,
        typer.Option(
            help="Name of a shipped potential or path of one; auto picks one for the elements."
        ),
    ] = "auto",
    ensemble: Annotated[EnsembleChoice, typer.Option(help="Ensemble and thermostat.")] = (
        EnsembleChoice.nvt_langevin
    ),
    timestep: Annotated[float, typer.Option(help="Timestep, fs.")] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="Temperature of thermostat and initial velocities, K.")
    ] = 300.0,
    steps: Annotated[int, typer.Option(min=0, help="Number of steps.")] = 2000,
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
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the built system, the velocities and the noise.")
    ] = 0,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start from the velocities in the file.")
    ] = False,
    interval: Annotated[int, typer.Option(min=1, help="Steps between trajectory frames.")] = 20,
    log_interval: Annotated[int, typer.Option(min=1, help="Steps between rows of the log.")] = 5,
    discard: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Leading part of the run left out of averages."),
    ] = 0.2,
    dtype: Annotated[
        Precision, typer.Option(help="Precision of the potential; float64 for strict NVE.")
    ] = Precision.float32,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; by default the GPU if there is one.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("md_out"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier run there.")
    ] = False,
) -> None:
    """Run molecular dynamics and draw its temperature, energies and, for water, g_OO(r).

    For example:

      pet-calc md --system water --molecules 64 --steps 2000

      pet-calc md start.xyz --ensemble nve --dtype float64 --timestep 0.5 --out nve_run

    Writes md.toml (the settings in full), trajectory.traj, log.csv, md.png and, for water, rdf.csv.
    """
    from rich.console import Console

    from pet_calc.io.outputs import claim_folder, clear_folder
    from pet_calc.workflows.md import OUTPUT_FILES, MDConfig, MDProgress, run_md
    from pet_calc.workflows.observables.water import is_water

    if (structure is None) == (system is None):
        raise typer.BadParameter(
            "give either a STRUCTURE file or --system water", param_hint="STRUCTURE / --system"
        )
    console = Console()
    config = MDConfig(
        ensemble=ensemble.value,
        timestep=timestep,
        temperature=temperature,
        steps=steps,
        tau=thermostat_time(tau, friction, ensemble),
        seed=seed,
        initial_velocities="keep" if keep_velocities else "maxwell-boltzmann",
        frame_interval=interval,
        log_interval=log_interval,
    )
    source = str(structure) if structure is not None else f"{molecules} water molecules, 1 g/cm³"
    claim_folder(out, (*OUTPUT_FILES, SETTINGS, FIGURE, RDF_TABLE), overwrite=overwrite)
    atoms = read_structure(structure) if structure is not None else build_water(molecules, seed)
    console.print(
        f"{source}: {atoms.get_chemical_formula(empirical=len(atoms) > 50)}, {len(atoms)} atoms",
        highlight=False,
    )
    atoms.calc = make_calculator(model, None, device, dtype.value)
    potential = potential_name(atoms.calc, model, atoms)
    settings: dict[str, Any] = {
        "structure": source,
        "model": potential,
        **provenance(atoms.calc),
        "discard": discard,
    }
    clear_folder(out, (SETTINGS, FIGURE, RDF_TABLE))
    (out / SETTINGS).write_text(settings_toml(settings, config), encoding="utf-8")
    console.print(f"potential: [bold]{potential}[/bold], {dtype.value}", highlight=False)

    with MDProgress(config, len(atoms), console) as progress:
        result = run_md(atoms, config, out, overwrite=overwrite, on_step=progress)

    water = None
    if is_water(result.atoms) and steps > 0:
        water = analyse_water(result, discard)
        write_rdfs(water, out / RDF_TABLE)
    draw(result, water, out / FIGURE, discard=discard, title=f"{potential}, {config.ensemble}")
    console.print(summary(result, water, discard, out))


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
    from pet_calc.workflows.water_box import water_box

    return water_box(molecules, density=1.0, seed=seed)


def potential_name(calculator: Any, model: str, atoms: Atoms) -> str:
    """Name of the potential in use; ``auto`` is resolved by a first calculation."""
    if model == "auto":
        from pet_calc.workflows.guards import check_structure

        check_structure(atoms)
        atoms.get_potential_energy()
    return str(getattr(calculator, "name", model))


def provenance(calculator: Any) -> dict[str, Any]:
    """What a calculator records of itself that a later run needs to be the same."""
    recorded = calculator.todict()
    return {
        key: recorded[key] for key in ("sha256", "device", "dtype") if recorded.get(key) is not None
    }


def settings_toml(settings: dict[str, Any], config: MDConfig) -> str:
    """The resolved settings as TOML: what was run, key by key."""
    from dataclasses import asdict

    import ase

    import pet_calc

    values = asdict(config)
    guards = values.pop("guards")
    lines = [
        f"# settings of pet-calc md (pet_calc {pet_calc.__version__}, ase {ase.__version__})",
        *(f"{key} = {toml_value(value)}" for key, value in {**settings, **values}.items()),
        "",
        "[guards]",
        *(f"{key} = {toml_value(v)}" for key, v in guards.items() if v is not None),
    ]
    return "\n".join(lines) + "\n"


def toml_value(value: str | float | bool) -> str:
    """A scalar as TOML; JSON writes strings, numbers and booleans in the same way."""
    return json.dumps(value, ensure_ascii=False)


def analyse_water(result: MDResult, discard: float) -> WaterStructure:
    """g(r) of the frames after the discarded part."""
    from ase.io.trajectory import Trajectory

    from pet_calc.workflows.observables import water_structure

    with Trajectory(result.trajectory_file) as frames:
        first = min(round(discard * len(frames)), len(frames) - 1)
        return water_structure(frames[i] for i in range(first, len(frames)))


def write_rdfs(water: WaterStructure, path: Path) -> None:
    """The three g(r) and their errors as CSV."""
    import csv

    columns = (water.g_OO, water.g_OH, water.g_HH)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ["g_" + "".join(rdf.pair) for rdf in columns]
        writer.writerow(["r_A", *(x for name in names for x in (name, f"{name}_error"))])
        for k, r in enumerate(water.g_OO.r):
            row = [x for rdf in columns for x in (rdf.g[k], rdf.error[k])]
            writer.writerow([f"{r:.5f}", *(f"{x:.6g}" for x in row)])


def draw(
    result: MDResult, water: WaterStructure | None, path: Path, *, discard: float, title: str
) -> None:
    """The figure of the run."""
    from pet_calc.workflows.plots import md_figure, save_figure

    config = result.config
    save_figure(
        md_figure(
            result.log,
            len(result.atoms),
            title=f"{title}: {len(result.atoms)} atoms, {config.timestep:g} fs steps",
            target_temperature=None if config.ensemble == "nve" else config.temperature,
            water=water,
            equilibration=discard * result.log.time[-1],
        ),
        path,
    )


def summary(result: MDResult, water: WaterStructure | None, discard: float, out: Path) -> Table:
    """The closing table."""
    from rich.table import Table

    from pet_calc.workflows.md.log import Estimate, block_mean, drift_per_atom
    from pet_calc.workflows.observables import SKINNER_2013

    log = result.log
    kept = log.after(discard * log.time[-1])
    table = Table(title="Molecular dynamics", show_header=False)
    table.add_row("simulated", f"{log.time[-1] / 1e3:.4g} ps in {log.step[-1]} steps")
    table.add_row("mean temperature", f"{block_mean(kept.temperature)} K")
    table.add_row(
        "drift of conserved energy", f"{drift_per_atom(kept, len(result.atoms))} meV/atom/ps"
    )
    if water is not None:
        peak = water.first_peak
        position = Estimate(peak.position, peak.position_error)
        height = Estimate(peak.height, peak.height_error)
        table.add_row("g_OO first peak", f"{position} Å, height {height}")
        table.add_row(
            "  experiment",
            f"{SKINNER_2013.position:.2f} ± {SKINNER_2013.position_error:.2f} Å, "
            f"height {SKINNER_2013.height:.2f} ± {SKINNER_2013.height_error:.2f} (X-ray)",
        )
    table.add_row("speed", f"{result.ns_per_day:.3g} ns/day")
    names = [
        name
        for name in (SETTINGS, result.trajectory_file.name, result.log_file.name, FIGURE, RDF_TABLE)
        if (out / name).exists()
    ]
    table.add_row(f"files in {out}", "\n".join(names))
    return table
