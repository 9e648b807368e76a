"""``pet-calc evaluate-generator``: a generator beside random search, at equal cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import (
    CalculatorOption,
    ConfigOption,
    make_calculator,
    resolved_options,
)
from pet_calc.cli.options import (
    DeviceOption,
    DtypeOption,
    OverwriteOption,
    static_precision,
)

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table

TABLE, SETTINGS = "evaluation.csv", "evaluate-generator.toml"
RELAXED, HULL = "relaxed.csv", "hull.json"


def evaluate_generator(
    context: typer.Context,
    generator: Annotated[str, typer.Argument(help="Name or folder of a generator, or random.")],
    references: Annotated[
        Path, typer.Option(help="Crystals that it was not trained on: .npz(.xz), CIF, extxyz ...")
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="Proposals for each composition.")] = 1,
    compositions: Annotated[
        int, typer.Option(min=1, help="Reference crystals, drawn at random from the file.")
    ] = 200,
    max_atoms: Annotated[int, typer.Option(min=1, help="Largest reference cell.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw and the proposals.")] = 0,
    guidance: Annotated[float, typer.Option(help="Weight of the composition.")] = 1.0,
    sampler_steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 100,
    ddim: Annotated[bool, typer.Option("--ddim", help="Deterministic denoising.")] = False,
    attempts: Annotated[
        int,
        typer.Option(min=1, help="Draw what is out of bounds again, so often in all; 1 for never."),
    ] = 3,
    match: Annotated[bool, typer.Option(help="Match rate, with pymatgen.")] = True,
    smact: Annotated[bool, typer.Option(help="Composition validity, with SMACT.")] = False,
    free: Annotated[
        bool,
        typer.Option("--free", help="The generator chooses as many compositions itself."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Also relax all proposals, with this potential.", show_default=False),
    ] = None,
    calculator: CalculatorOption = None,
    competitors: Annotated[
        Path | None,
        typer.Option(
            help="Crystals whose energies, by the same calculator, are the hull of S.U.N.",
            show_default=False,
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="Crystals that are not novel, as of training.", show_default=False),
    ] = None,
    stable: Annotated[
        float, typer.Option(help="Energy above the hull that counts as stable, eV/atom.")
    ] = 0.1,
    fmax: Annotated[float, typer.Option(help="Largest force after relaxation, eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="Most steps of a relaxation.")] = 200,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("evaluation_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure validity, uniqueness, coverage, match rate and, by relaxation, S.U.N.

    For example:

      pet-calc evaluate-generator unimat-perov --references perov_5_test.npz.xz --compositions 200

      pet-calc evaluate-generator unimat-mp --references val.cif --model auto --competitors hull.cif

    Writes evaluation.csv, a row for the generator and one for random search with as many proposals.
    With a potential all proposals are relaxed: relaxed.csv, and the hull in hull.json.
    """
    from dataclasses import asdict, replace

    import numpy as np
    from rich.console import Console

    from pet_calc.crystals.diffusion.config import SamplerConfig
    from pet_calc.crystals.generation.comparison import ComparisonConfig, compare
    from pet_calc.crystals.generation.config import default_relaxation
    from pet_calc.crystals.generation.generator import Generator
    from pet_calc.crystals.generation.matching import Matcher
    from pet_calc.crystals.io.unimat import read_crystals
    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.progress import progress_bar

    if free and generator == "random":
        raise typer.BadParameter("random search is given compositions; --free needs a generator")
    claim_folder(out, (TABLE, SETTINGS, RELAXED, HULL), overwrite=overwrite)
    crystals = [c for c in read_crystals(references) if len(c.numbers) <= max_atoms]
    if not crystals:
        raise ValueError(f"{references} holds no crystal of at most {max_atoms} atoms")
    draw = np.random.default_rng(seed).permutation(len(crystals))[:compositions]
    chosen = [crystals[k] for k in sorted(draw.tolist())]
    potential = None
    if model is not None or calculator is not None:
        static = static_precision(dtype, calculator)
        potential = make_calculator(model or "auto", calculator, device, static)
    elif competitors is not None:
        raise typer.BadParameter("--competitors are relaxed by --model or --calculator; give one")
    matcher = Matcher() if match else None
    source = None if generator == "random" else Generator.load(generator)
    settings = ComparisonConfig(
        n=n,
        seed=seed,
        sampler=SamplerConfig(
            method="ddim" if ddim else "ddpm", steps=sampler_steps, guidance=guidance
        ),
        attempts=attempts,
        smact=smact,
        free=free,
        relax=replace(default_relaxation(), fmax=fmax, steps=steps),
        threshold=stable,
    )
    with progress_bar() as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total or None)

        found = compare(
            source,
            chosen,
            settings,
            matcher=matcher,
            calculator=potential,
            rivals=() if competitors is None else read_crystals(competitors),
            known=() if known is None else read_crystals(known),
            on_progress=show,
        )
    packages = ("ase", "numpy", "torch", "spglib", "pymatgen", "smact")
    origin = provenance(potential, seed=seed, packages=packages)
    if source is not None:
        origin["generator_sha256"] = source.digest
    if matcher is not None:
        origin["matching"] = matcher.label
    if found.hull is not None:
        found.hull.save(out / HULL)
    text = settings_toml(
        "settings of pet-calc evaluate-generator", resolved_options(context), origin
    )
    (out / SETTINGS).write_text(text, encoding="utf-8")
    console = Console()
    title = f"{len(chosen)} compositions" + (" chosen" if free else f", {n} proposals each")
    for name, rows, first in ((TABLE, found.proposed, 3), (RELAXED, found.relaxed, 2)):
        values = [asdict(row) for row in rows]
        if values:
            write_table(out / name, values)
            console.print(side_by_side(f"{title}: {name}", values, first))
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    if matcher is not None:
        console.print(f"matching: {matcher.label}", highlight=False)
    if smact:
        console.print(f"SMACT {origin['versions']['smact']}", highlight=False)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file of rows with the same keys."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def side_by_side(title: str, rows: list[dict[str, Any]], first: int) -> Table:
    """A column for each source, a line for each measure from the `first` one on."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("measure")
    for row in rows:
        table.add_column(str(row["source"]), justify="right")
    for key in list(rows[0])[first:]:
        table.add_row(key.replace("_", " "), *(f"{row[key]:.4g}" for row in rows))
    return table
