"""``pet-calc evaluate-generator``: a generator beside random search, at equal cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_calc.cli.inputs import ConfigOption, resolved_options
from pet_calc.cli.options import OverwriteOption

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TABLE, SETTINGS = "evaluation.csv", "evaluate-generator.toml"


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
    match: Annotated[bool, typer.Option(help="Match rate, with pymatgen.")] = True,
    smact: Annotated[bool, typer.Option(help="Composition validity, with SMACT.")] = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("evaluation_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure validity, uniqueness, coverage and match rate for known compositions.

    For example:

      pet-calc evaluate-generator unimat-perov --references perov_5_test.npz.xz --compositions 200

    Writes evaluation.csv, a row for the generator and one for random search with as many proposals.
    """
    import csv
    from dataclasses import asdict
    from functools import partial

    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from pet_calc.diffusion.sampler import SamplerConfig
    from pet_calc.generation.evaluation import measure
    from pet_calc.generation.generator import Generator
    from pet_calc.generation.matching import Matcher
    from pet_calc.io.outputs import claim_folder
    from pet_calc.io.provenance import provenance, settings_toml
    from pet_calc.io.unimat import read_crystals
    from pet_calc.workflows.progress import progress_bar

    claim_folder(out, (TABLE, SETTINGS), overwrite=overwrite)
    known = [c for c in read_crystals(references) if len(c.numbers) <= max_atoms]
    if not known:
        raise ValueError(f"{references} holds no crystal of at most {max_atoms} atoms")
    draw = np.random.default_rng(seed).permutation(len(known))[:compositions]
    chosen = [known[k] for k in sorted(draw.tolist())]
    matcher = Matcher() if match else None
    sampler = SamplerConfig(
        method="ddim" if ddim else "ddpm", steps=sampler_steps, guidance=guidance
    )
    sources: list[Generator | str] = ["random"]
    if generator != "random":
        sources.insert(0, Generator.load(generator))
    console = Console()
    found = []
    with progress_bar() as progress:
        for source in sources:
            name = source if isinstance(source, str) else source.name
            task = progress.add_task(name, total=len(chosen))
            found.append(
                measure(
                    source, chosen, n, seed=seed, sampler=sampler, matcher=matcher, smact=smact,
                    on_progress=partial(reach, progress, task),
                )
            )  # fmt: skip
    packages = ("ase", "numpy", "torch", "spglib", "pymatgen", "smact")
    origin = provenance(seed=seed, packages=packages)
    if isinstance(sources[0], Generator):
        origin["sha256"] = sources[0].digest
    if matcher is not None:
        origin["matching"] = matcher.label
    text = settings_toml(
        "settings of pet-calc evaluate-generator", resolved_options(context), origin
    )
    (out / SETTINGS).write_text(text, encoding="utf-8")
    rows = [asdict(m) for m in found]
    with (out / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = Table(title=f"{len(chosen)} compositions, {n} proposals each")
    table.add_column("measure")
    for r in rows:
        table.add_column(str(r["source"]), justify="right")
    for key in list(rows[0])[3:]:
        table.add_row(key.replace("_", " "), *(f"{r[key]:.4g}" for r in rows))
    console.print(table)
    if matcher is not None:
        console.print(f"matching: {matcher.label}", highlight=False)


def reach(progress: Progress, task: TaskID, count: int) -> None:
    """Move a bar to `count`."""
    progress.update(task, completed=count)
