"""``pet-calc analyze``: observables of a trajectory of any origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from pet_calc.cli.inputs import load_table, read_structures
from pet_calc.cli.options import ConfigOption, ReportedFolder
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run
from pet_calc.workflows.observables.config import AnalysisConfig

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pet_calc.workflows.observables import Analysis
    from pet_calc.workflows.observables.config import AnalysisConfig

SUMMARY, FIGURE = "summary.json", "observables.png"
TABLES = ("rdf", "order", "diffusion", "vdos", "hydrogen-bonds", "density", "lattice")
OUTPUTS = (SUMMARY, FIGURE, *(f"{name}.csv" for name in TABLES))


@dataclass(frozen=True)
class Trajectory:
    """The frames.

    Attributes
    ----------
    trajectory : Path
        Trajectory in any format that ASE reads: .traj, extended XYZ, LAMMPS dump, ...
    index : str
        Frames of the file (ASE index).
    discard : float
        Leading part of the frames left out, 0 to 0.95.
    lammps_species : tuple of str
        Elements of the types of a LAMMPS dump without them, as in O,H.
    """

    panel: ClassVar[str] = "Trajectory"

    trajectory: Path = field(metadata={"argument": True, "file": "structure file"})
    index: str = ":"
    discard: float = 0.2
    lammps_species: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.discard <= 0.95:
            raise ValueError(f"`discard` must lie between 0 and 0.95, got {self.discard}")


@options_of(out=Path("analyze_out"))
def analyze(
    context: typer.Context,
    source: Trajectory,
    settings: Annotated[AnalysisConfig, "Analysis"],
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Compute observables of a trajectory, with error bars.

    For example:

      pet-calc analyze md_out/trajectory.traj --report

      pet-calc analyze dump.lammpstrj --lammps-species O,H --interval 2 --observables rdf,vdos

    Writes summary.json, one CSV file for each observable with a curve, observables.png, and
    analyze.toml (the settings in full). Observables that the frames do not allow are named with
    the reason; asked for with --observables, they are an error.
    """
    run = Run(context, folder, OUTPUTS)
    from pet_calc.workflows.progress import pulsing

    path = source.trajectory
    with pulsing(f"reading {path.name}"):
        frames = read_frames(source)
    interval, frames = interval_beside(path, frames)
    if settings.interval is None:
        settings = replace(settings, interval=interval)
    interval = settings.interval
    kept = frames[min(round(source.discard * len(frames)), len(frames) - 1) :]
    known = f"{interval:g} fs apart" if interval is not None else "time between them unknown"
    run.console.print(
        f"{path}: {len(kept)} of {len(frames)} frames, {known}, "
        f"{frames[0].get_chemical_formula(empirical=len(frames[0]) > 50)}",
        highlight=False,
    )
    result = compute(kept, settings)
    run.begin(packages=("ase", "numpy", "scipy"), interval=interval)
    write_results(result, run)
    run.console.print(summary_table(result, run))
    run.page(kept)
    for names, reason in grouped(result.skipped):
        run.console.print(f"not computed: {names}: {reason}", highlight=False, markup=False)


def read_frames(source: Trajectory) -> list[Atoms]:
    """The frames of a trajectory; for LAMMPS dumps, types become elements."""
    path = source.trajectory
    frames = read_structures(path, source.index)
    from pet_calc.errors import InvalidStructureError
    from pet_calc.io.structures.lammps_dump import lacks_elements, name_types
    from pet_calc.workflows.guards import check_structure

    if source.lammps_species:
        name_types(frames, list(source.lammps_species))
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
    every, step = values.get("frame_interval"), values.get("timestep")
    if every is None or step is None:
        return None, frames
    if values.get("steps", 0) % every and len(frames) > 1:
        frames = frames[:-1]
    return float(every) * float(step), frames


def compute(frames: list[Atoms], settings: AnalysisConfig) -> Analysis:
    """The analysis, with its progress on the terminal."""
    from pet_calc.workflows.observables import analyze
    from pet_calc.workflows.progress import ProgressBar

    with ProgressBar() as progress:
        return analyze(frames, settings, on_progress=progress)


def write_results(result: Analysis, run: Run) -> None:
    """The summary, the tables and the figure."""
    from pet_calc.io.runs.figures import save_figure
    from pet_calc.workflows.observables.figures import analysis_figure

    def plain(x: float) -> float | None:
        return x if math.isfinite(x) else None

    quantities = [
        {
            "name": q.name,
            "value": plain(q.estimate.value),
            "error": plain(q.estimate.error),
            "unit": q.unit,
            "note": q.note,
        }
        for q in result.quantities
    ]
    content = {"formula": result.formula, "n_frames": result.n_frames, "quantities": quantities}
    run.write_json(SUMMARY, {**content, "not_computed": result.skipped})
    for name, table in result.tables.items():
        rows = zip(*table.values(), strict=True)
        run.write_csv(
            f"{name}.csv",
            list(table),
            [[x if isinstance(x, str) else f"{x:.8g}" for x in row] for row in rows],
        )
    if result.tables:
        save_figure(analysis_figure(result), run.out / FIGURE, run.origin)


def grouped(skipped: dict[str, str]) -> list[tuple[str, str]]:
    """Names with the same reason, together."""
    reasons = dict.fromkeys(skipped.values())
    return [(", ".join(k for k, v in skipped.items() if v == reason), reason) for reason in reasons]


def summary_table(result: Analysis, run: Run) -> Table:
    """The closing table."""
    from rich.table import Table

    table = Table(title=f"Observables of {result.formula}")
    for name in ("quantity", "value", "unit", "note"):
        table.add_column(name)
    for q in result.quantities:
        table.add_row(q.name, str(q.estimate), q.unit, q.note)
    table.caption = f"files in {run.out}: {', '.join(run.files().split())}"
    return table
