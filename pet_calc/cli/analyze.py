"""``pet-calc analyze``: observables of a trajectory of any origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import ConfigOption, load_table, read_structures

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pet_calc.workflows.observables import Analysis
    from pet_calc.workflows.observables.config import AnalysisConfig

SETTINGS, SUMMARY, FIGURE, REPORT = "analyze.toml", "summary.json", "observables.png", "report.html"
TABLES = ("rdf", "order", "diffusion", "vdos", "hydrogen-bonds", "density", "lattice")
OUTPUT_FILES = (SETTINGS, SUMMARY, FIGURE, REPORT, *(f"{name}.csv" for name in TABLES))


def analyze(
    trajectory: Annotated[
        Path,
        typer.Argument(
            help="Trajectory in any format that ASE reads: .traj, extended XYZ, LAMMPS dump, ...",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
    observables: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: temperature, density, rdf, hydrogen-bonds, lattice, order, msd, "
            "diffusion, vdos, heat-capacity, thermal-expansion.  [default: by composition]",
            show_default=False,
        ),
    ] = None,
    timestep: Annotated[
        float | None,
        typer.Option(
            help="Time between frames of the trajectory, fs.  [default: from md.toml beside it]",
            show_default=False,
        ),
    ] = None,
    discard: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Leading part of the frames left out.")
    ] = 0.2,
    temperature: Annotated[
        float | None,
        typer.Option(help="K.  [default: from the momenta of the frames]", show_default=False),
    ] = None,
    pressure: Annotated[float, typer.Option(help="Of a run at constant pressure, GPa.")] = 0.0,
    viscosity: Annotated[
        float,
        typer.Option(
            help="mPa·s, for the finite-size correction of water's diffusion; the default is "
            "that of real water at 298 K."
        ),
    ] = 0.89,
    r_max: Annotated[
        float | None,
        typer.Option(help="Range of g(r), Å.  [default: half the cell]", show_default=False),
    ] = None,
    shells: Annotated[int, typer.Option(min=1, max=3, help="Shells of order parameters.")] = 2,
    crystal: Annotated[
        str | None,
        typer.Option(
            help="fcc, bcc, hcp, diamond or sc.  [default: recognized]", show_default=False
        ),
    ] = None,
    fit_start: Annotated[
        float | None,
        typer.Option(
            help="First lag of the diffusion fit, fs.  [default: a fifth of the last]",
            show_default=False,
        ),
    ] = None,
    fit_end: Annotated[
        float | None,
        typer.Option(
            help="Last lag of the diffusion fit, fs.  [default: a tenth of the trajectory]",
            show_default=False,
        ),
    ] = None,
    resolution: Annotated[float, typer.Option(help="Of the VDOS, cm⁻¹.")] = 20.0,
    lammps_species: Annotated[
        str | None,
        typer.Option(
            help="Elements of the types of a LAMMPS dump without them, as in O,H.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, with a 3-D view.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("analyze_out"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier analysis there.")
    ] = False,
) -> None:
    """Compute observables of a trajectory, with error bars.

    For example:

      pet-calc analyze md_out/trajectory.traj --report

      pet-calc analyze dump.lammpstrj --lammps-species O,H --timestep 2 --observables rdf,vdos

    Writes summary.json, one CSV file for each observable with a curve, observables.png, and
    analyze.toml (the settings in full). Observables that the frames do not allow are named with
    the reason; asked for with --observables, they are an error.
    """
    from rich.console import Console

    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.observables.config import AnalysisConfig
    from pet_calc.workflows.progress import pulsing

    if (fit_start is None) != (fit_end is None):
        raise typer.BadParameter("give both ends of the fit, or none", param_hint="--fit-start")
    console = Console()
    claim_folder(out, OUTPUT_FILES, overwrite=overwrite)
    with pulsing(f"reading {trajectory.name}"):
        frames = read_frames(trajectory, lammps_species)
    known_interval, frames = interval_beside(trajectory, frames)
    interval = known_interval if timestep is None else timestep
    kept = frames[min(round(discard * len(frames)), len(frames) - 1) :]
    chosen = None if observables is None else [x.strip() for x in observables.split(",")]
    settings = AnalysisConfig(
        observables=None if chosen is None else tuple(chosen),
        interval=interval,
        temperature=temperature,
        pressure=pressure,
        viscosity=viscosity,
        r_max=r_max,
        shells=shells,
        crystal=crystal,  # type: ignore[arg-type]
        fit=None if fit_start is None or fit_end is None else (fit_start, fit_end),
        resolution=resolution,
    )
    known = f"{interval:g} fs apart" if interval is not None else "time between them unknown"
    console.print(
        f"{trajectory}: {len(kept)} of {len(frames)} frames, {known}, "
        f"{frames[0].get_chemical_formula(empirical=len(frames[0]) > 50)}",
        highlight=False,
    )
    result = compute(kept, settings)

    clear_folder(out, OUTPUT_FILES)
    origin = provenance(packages=("ase", "numpy", "scipy"))
    flags: dict[str, Any] = {
        "trajectory": trajectory,
        "observables": observables,
        "timestep": interval,
        "discard": discard,
        "temperature": temperature,
        "pressure": pressure,
        "viscosity": viscosity,
        "r_max": r_max,
        "shells": shells,
        "crystal": crystal,
        "fit_start": fit_start,
        "fit_end": fit_end,
        "resolution": resolution,
        "lammps_species": lammps_species,
        "report": report,
        "out": out,
    }
    (out / SETTINGS).write_text(
        settings_toml("settings of pet-calc analyze", flags, origin), encoding="utf-8"
    )
    write_results(result, out, origin)
    if report:
        with pulsing("report"):
            write_page(result, kept, flags, origin, out / REPORT)
    console.print(summary_table(result, out))
    for names, reason in grouped(result.skipped):
        console.print(f"not computed: {names}: {reason}", highlight=False, markup=False)


def read_frames(path: Path, lammps_species: str | None) -> list[Atoms]:
    """All frames of a trajectory; for LAMMPS dumps, types become elements."""
    frames = read_structures(path, ":")
    from pet_calc.errors import InvalidStructureError
    from pet_calc.io.structures.lammps_dump import lacks_elements, name_types
    from pet_calc.workflows.guards import check_structure

    if lammps_species is not None:
        name_types(frames, [s.strip() for s in lammps_species.split(",")])
    elif lacks_elements(path):
        raise ValueError(
            f"{path} is a LAMMPS dump without elements; name those of its types in their order, "
            "as in --lammps-species O,H"
        )
    for k, atoms in enumerate(frames):
        try:
            check_structure(atoms)
        except InvalidStructureError as error:
            raise InvalidStructureError(f"frame {k} of {path} cannot be used: {error}") from error
    return frames


def interval_beside(path: Path, frames: list[Atoms]) -> tuple[float | None, list[Atoms]]:
    """Time between frames by the ``md.toml`` beside a trajectory of ``pet-calc md``.

    A run also writes its last step; that frame is left out where it does not fall on the interval.
    """
    settings = path.parent / "md.toml"
    if path.name != "trajectory.traj" or not settings.is_file():
        return None, frames
    values = load_table(settings)
    every, step = values.get("interval", values.get("frame_interval")), values.get("timestep")
    if every is None or step is None:
        return None, frames
    if values.get("steps", 0) % every and len(frames) > 1:
        frames = frames[:-1]
    return float(every) * float(step), frames


def compute(frames: list[Atoms], settings: AnalysisConfig) -> Analysis:
    """The analysis, with its progress on the terminal."""
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    from pet_calc.workflows.observables import analyze, default_observables
    from pet_calc.workflows.progress import progress_bar

    names = settings.observables or default_observables(frames)
    with progress_bar(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        task = progress.add_task("analyzing", total=len(names))
        done = iter(range(len(names)))
        return analyze(
            frames,
            settings,
            on_observable=lambda name: progress.update(
                task, description=name, completed=next(done, len(names))
            ),
        )


def write_results(result: Analysis, out: Path, origin: dict[str, Any]) -> None:
    """The summary, the tables and the figure."""
    import csv
    import json
    import math

    from pet_calc.workflows.observables.figures import analysis_figure
    from pet_calc.workflows.plots import save_figure

    def plain(x: float) -> float | None:
        return x if math.isfinite(x) else None

    summary = {
        "formula": result.formula,
        "n_frames": result.n_frames,
        "quantities": [
            {
                "name": q.name,
                "value": plain(q.estimate.value),
                "error": plain(q.estimate.error),
                "unit": q.unit,
                "note": q.note,
            }
            for q in result.quantities
        ],
        "not_computed": result.skipped,
        "provenance": origin,
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
    for name, table in result.tables.items():
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table)
            for row in zip(*table.values(), strict=True):
                writer.writerow([x if isinstance(x, str) else f"{x:.8g}" for x in row])
    if result.tables:
        save_figure(analysis_figure(result), out / FIGURE, origin)


def write_page(
    result: Analysis,
    frames: list[Atoms],
    settings: dict[str, Any],
    origin: dict[str, Any],
    path: Path,
) -> None:
    """The report of the analysis."""
    from pet_calc.workflows.observables.figures import analysis_figure
    from pet_calc.workflows.report import Picture, Section, Structures, Table, Text, write_report

    rows = [(q.name, str(q.estimate), q.unit, q.note) for q in result.quantities]
    results = [Table(("quantity", "value", "unit", "note"), rows)]
    missing = [Text(f"Not computed: {k}: {v}") for k, v in grouped(result.skipped)]
    sections = [Section("Results", [*results, *missing])]
    if result.tables:
        picture = Picture.from_figure(analysis_figure(result), "Bands are standard errors.")
        sections.append(Section("Curves", [picture]))
    write_report(
        path,
        f"Observables of {result.formula}",
        sections,
        lead=f"pet-calc analyze · {settings['trajectory']} · {result.n_frames} frames",
        structures=Structures(frames),
        settings={k: v for k, v in settings.items() if v is not None},
        provenance=origin,
    )


def grouped(skipped: dict[str, str]) -> list[tuple[str, str]]:
    """Names with the same reason, together."""
    reasons = dict.fromkeys(skipped.values())
    return [(", ".join(k for k, v in skipped.items() if v == reason), reason) for reason in reasons]


def summary_table(result: Analysis, out: Path) -> Table:
    """The closing table."""
    from rich.table import Table

    table = Table(title=f"Observables of {result.formula}")
    for name in ("quantity", "value", "unit", "note"):
        table.add_column(name)
    for q in result.quantities:
        table.add_row(q.name, str(q.estimate), q.unit, q.note)
    names = [name for name in OUTPUT_FILES if (out / name).exists()]
    table.caption = f"files in {out}: {', '.join(names)}"
    return table
