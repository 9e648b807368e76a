"""``pet-calc md``: molecular dynamics from a structure file or a built-in system."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from pet_calc.cli.inputs import import_named
from pet_calc.cli.md_results import FIGURE, RDF_TABLE, analyze_water, draw, summary, write_rdfs
from pet_calc.cli.options import ConfigOption, Potential, Precision, ResumedFolder, Structure
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run
from pet_calc.workflows.md.config import MDConfig

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

    from pet_calc.workflows.md import Observer


@dataclass(frozen=True)
class Start(Structure):
    """The structure that a simulation starts from.

    Attributes
    ----------
    structure : Path, optional
        Structure file in any format that ASE reads.
    system : {"water"}, optional
        Build this system instead of reading a file: water at 1 g/cm³.
    molecules : int
        Number of molecules of the built system.
    """

    structure: Path | None = field(  # type: ignore[assignment]
        default=None, metadata={"argument": True, "file": "structure file"}
    )
    system: Literal["water"] | None = None
    molecules: int = 64

    def __post_init__(self) -> None:
        if (self.structure is None) == (self.system is None):
            raise typer.BadParameter(
                "give either a STRUCTURE file or --system water, or --config with the md.toml of "
                "a run",
                param_hint="STRUCTURE / --system",
            )
        if self.molecules < 1:
            raise ValueError(f"`molecules` must be at least 1, got {self.molecules}")

    def make(self, seed: int, console: Console) -> Atoms:
        """Read or build the structure."""
        if self.structure is not None:
            return self.read(console)
        from pet_calc.workflows.progress import pulsing
        from pet_calc.workflows.water_box import water_box

        with pulsing("building the water box"):
            atoms = water_box(self.molecules, density=1.0, seed=seed)
        console.print(f"{self.molecules} water molecules, {len(atoms)} atoms", highlight=False)
        return atoms


@dataclass(frozen=True)
class MDPotential(Potential):
    """The potential, and how its steps are computed.

    Attributes
    ----------
    cuda_graph : bool
        Capture a step of a plain PET on a GPU and replay it: faster for small systems.
    """

    cuda_graph: bool = False

    def load(self, precision: Precision = "float32", **options: Any) -> Any:
        """See `Potential.load`."""
        return super().load(precision, cuda_graph=self.cuda_graph or None, **options)


@dataclass(frozen=True)
class Observation:
    """What is done with the frames.

    Attributes
    ----------
    discard : float
        Leading part of the run left out of averages, 0 to 0.9.
    on_step : str, optional
        Function module:name to call with atoms and sample during the run.
    every : int
        Steps between calls of that function.
    """

    panel: ClassVar[str] = "Output"

    discard: float = 0.2
    on_step: str | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.discard <= 0.9:
            raise ValueError(f"`discard` must lie between 0 and 0.9, got {self.discard}")
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1, got {self.every}")

    def observers(self) -> list[Observer]:
        """The function of the user, if any."""
        if self.on_step is None:
            return []
        function = import_named(self.on_step, "--on-step")
        from pet_calc.workflows.md import Observer

        return [Observer(function, self.every)]


@options_of(out=Path("md_out"))
def md(
    context: typer.Context,
    start: Start,
    settings: Annotated[MDConfig, "Ensemble"],
    potential: MDPotential,
    observation: Observation,
    folder: ResumedFolder,
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
    observers = observation.observers()
    from pet_calc.workflows.guards import check_structure, require_covered
    from pet_calc.workflows.md import OUTPUT_FILES, run_md
    from pet_calc.workflows.md.checkpoint import CHECKPOINT, load_checkpoint
    from pet_calc.workflows.observables.water import is_water
    from pet_calc.workflows.progress import Progress, ProgressBar, pulsing

    run = Run(context, folder, (*OUTPUT_FILES, FIGURE, RDF_TABLE), kept=OUTPUT_FILES)
    atoms = start.make(settings.seed, run.console)
    atoms.calc = potential.load()
    check_structure(atoms)
    require_covered(atoms)  # with "auto", a potential is chosen here
    name = str(getattr(atoms.calc, "name", potential.model))
    run.console.print(f"potential: [bold]{name}[/bold]", highlight=False)
    with ProgressBar() as bar:

        def record(progress: Progress) -> None:
            """The settings replace those of an earlier run once the new one is under way."""
            if not run.origin:
                # a ramp keeps the length with which it began
                ramp = load_checkpoint(run.out / CHECKPOINT).config["ramp_steps"]
                run.begin(atoms.calc, seed=settings.seed, ramp_steps=ramp)
            bar(progress)

        result = run_md(
            atoms,
            settings,
            run.out,
            overwrite=folder.overwrite,
            resume=folder.resume,
            on_progress=record,
            observers=observers,
        )

    water, discard = None, observation.discard
    with pulsing("analysis"):
        if is_water(result.atoms) and settings.steps > 0:
            water = analyze_water(result, discard)
            write_rdfs(water, run)
        title = f"{name}, {settings.ensemble}"
        path = run.out / FIGURE
        draw(result, water, path, discard=discard, title=title, origin=run.origin)
    run.console.print(summary(result, water, discard, run))
    run.page()
