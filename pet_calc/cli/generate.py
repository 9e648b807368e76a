"""``pet-calc generate`` and ``pet-calc hull``: crystals from a formula, and their competitors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pet_calc.cli.inputs import read_structures
from pet_calc.cli.options import (
    ConfigOption,
    OutputFolder,
    Potential,
    ResumableFolder,
    Structures,
)
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run
from pet_calc.crystals.generation.config import GenerateConfig

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.crystals.generation.pipeline import Generation

hull_app = typer.Typer(no_args_is_help=True, help="Competing phases for energies above the hull.")


@dataclass(frozen=True)
class References:
    """Crystals that candidates are made from and compared with.

    Attributes
    ----------
    templates : Path, optional
        Crystals whose sites substitution uses, instead of common structure types.
    hull : Path, optional
        Competitors, from pet-calc hull build.
    """

    panel: ClassVar[str] = "References"

    templates: Path | None = field(default=None, metadata={"file": "structure file"})
    hull: Path | None = field(default=None, metadata={"file": "hull"})


@options_of(out=Path("generate_out"), lengths=(0.0, 100.0))
def generate(
    context: typer.Context,
    settings: Annotated[GenerateConfig, "Candidates"],
    references: References,
    potential: Potential,
    folder: ResumableFolder,
    config: ConfigOption = None,
) -> None:
    """Propose crystals, of a formula or of any, relax them, and rank what is stable and new.

    For example:

      pet-calc generate --formula NaCl --z 1,2,4 --n 64 --out gen

      pet-calc generate --formula Cu3Au --calculator ase.calculators.emt:EMT --n 16 --md 1

    Writes candidates.csv (a row per candidate, the best first), candidates.extxyz (the same order),
    candidates.html, cif/ (symmetrized) and generate.toml. A candidate that fails has its reason in
    its row and does not stop the others.
    """
    from pet_calc.crystals.generation.hull import Hull
    from pet_calc.crystals.generation.pipeline import generate as propose_and_rank
    from pet_calc.crystals.generation.proposals import FILE
    from pet_calc.crystals.generation.results import OUTPUT_FILES, OUTPUT_FOLDERS, write_results
    from pet_calc.workflows.progress import progress_bar

    run = Run(context, folder, (*OUTPUT_FILES, *OUTPUT_FOLDERS), kept=(FILE, *OUTPUT_FOLDERS))
    competitors = None if references.hull is None else Hull.load(references.hull)
    templates = None if references.templates is None else read_structures(references.templates)
    calculator = potential.load()
    with progress_bar() as progress:
        task = progress.add_task("proposals", total=settings.n)

        def on_stage(stage: str) -> None:
            progress.update(task, description=stage)
            if stage == "relaxation":  # now one potential has been chosen for all proposals
                packages = ("ase", "numpy", "torch", "spglib")
                run.begin(calculator, packages=packages, seed=settings.seed, free=())
                run.console.print(f"potential: {calculator.name}", highlight=False)
                if not folder.resume:
                    clear_earlier(run.out)

        result = propose_and_rank(
            settings,
            calculator,
            run.out,
            hull=competitors,
            templates=templates,
            resume=folder.resume,
            on_stage=on_stage,
            on_result=lambda index, outcome: progress.advance(task),
        )
    recorded = {k: v for k, v in run.options(calculator).items() if v is not None}
    write_results(result, run.out, recorded, settings.symprec)
    for note in result.notes:
        run.console.print(note, highlight=False, markup=False)
    run.console.print(summary(result, run.out))
    raise typer.Exit(0 if result.kept else 1)


def clear_earlier(out: Path) -> None:
    """Remove the relaxations and tests of an earlier run."""
    from pet_calc.io.runs.outputs import clear_folder
    from pet_calc.workflows.relax.journal import OUTPUT_FILES

    clear_folder(out / "relax", OUTPUT_FILES)
    for path in (out / "tests").glob("*.json"):
        path.unlink()


def summary(result: Generation, out: Path) -> Table:
    """The best crystals."""
    from collections import Counter

    from rich.table import Table

    counts = Counter(c.status for c in result.candidates)
    title = ", ".join(f"{k} {s}" for s, k in counts.most_common())
    table = Table(title=title, caption=f"in {out}: candidates.csv, .extxyz, .html, cif")
    name = result.energy_column.replace("_", " ")
    for heading in ("id", "atoms", "E (eV/atom)", f"{name} (eV/atom)", "space group"):
        table.add_column(heading)
    for c in result.kept[:10]:
        assert c.atoms is not None
        relative = f"{c.above_hull:.4f}" if not c.hull_reason else c.hull_reason
        table.add_row(c.proposal.id, str(len(c.atoms)), f"{c.energy:.5f}", relative, c.space_group)
    return table


@hull_app.command("build")
@options_of(out=Path("hull_out"))
def build(
    context: typer.Context,
    structures: Structures,
    potential: Potential,
    folder: OutputFolder,
    fmax: Annotated[float, typer.Option(help="Largest force after relaxation, eV/Å.")] = 0.02,
    steps: Annotated[
        int, typer.Option(help="Maximum number of steps of a relaxation; 0: energies as given.")
    ] = 300,
    config: ConfigOption = None,
) -> None:
    """Relax competing phases and their elements with one potential, for pet-calc generate --hull.

    For example:

      pet-calc hull build CuAu.cif Cu3Au.cif --calculator ase.calculators.emt:EMT --out hull

    Writes hull.json and hull.toml. The elements' references are ASE's reference states.
    """
    run = Run(context, folder, ("hull.json",), verb="hull")
    frames = structures.read()
    from pet_calc.crystals.generation.references import build_hull
    from pet_calc.workflows.progress import progress_bar
    from pet_calc.workflows.relax import RelaxConfig

    calculator: Any = potential.load()
    relax = RelaxConfig(cell="free" if steps else "fixed", fmax=fmax, steps=steps)
    with progress_bar() as bar:
        task = bar.add_task("relaxation", total=None)
        found, reasons = build_hull(
            [atoms for _, _, atoms in frames],
            calculator,
            relax,
            [f"{path.name} {k}" for path, k, _ in frames],
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    run.begin(calculator)
    found.save(run.out / "hull.json")
    for name, reason in reasons.items():
        run.console.print(f"left out {name}: {reason}", highlight=False, markup=False)
    run.console.print(f"{len(found.phases)} phases in {run.out / 'hull.json'}", highlight=False)
