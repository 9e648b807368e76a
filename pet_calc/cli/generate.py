"""``pet-calc generate`` and ``pet-calc hull``: crystals from a formula, and their competitors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import (
    CalculatorOption,
    ConfigOption,
    make_calculator,
    read_structures,
    resolved_options,
)
from pet_calc.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelOption,
    OverwriteOption,
    static_precision,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.crystals.generation.pipeline import Generation

SETTINGS = "generate.toml"

hull_app = typer.Typer(no_args_is_help=True, help="Competing phases for energies above the hull.")


def generate(
    context: typer.Context,
    formula: Annotated[
        str,
        typer.Option(
            help="Formula such as SrTiO3; several with commas; Na-Cl is a chemical system.  "
            "[default: a generator chooses]",
            show_default=False,
        ),
    ] = "",
    z: Annotated[
        str, typer.Option("--z", help="Formula units per cell, separated by commas.")
    ] = "1,2,4",
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates in all.")] = 64,
    within: Annotated[
        str,
        typer.Option(
            help="Without --formula: elements that may be chosen, as in Li,Fe,O.",
            show_default=False,
        ),
    ] = "",
    atoms: Annotated[
        str,
        typer.Option(
            help="Numbers of atoms that the cell may have, as in 4,8.", show_default=False
        ),
    ] = "",
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="substitution, random, or name or folder of a generator; may be repeated.  "
            "[default: unimat-mp, substitution and random]",
            show_default=False,
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            help="Crystals whose sites substitution uses, instead of common structure types.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    hull: Annotated[
        Path | None,
        typer.Option(help="Competitors, from `pet-calc hull build`.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all proposals.")] = 0,
    guidance: Annotated[
        float, typer.Option(help="Weight of the composition in a generator; 1: no guidance.")
    ] = 1.0,
    sampler_steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 100,
    ddim: Annotated[bool, typer.Option("--ddim", help="Deterministic denoising.")] = False,
    contact: Annotated[
        float, typer.Option(help="Least distance over the sum of covalent radii, of proposals.")
    ] = 0.5,
    min_length: Annotated[float, typer.Option(help="Shortest cell length, Å.")] = 0.0,
    max_length: Annotated[float, typer.Option(help="Longest cell length, Å.")] = 100.0,
    aspect: Annotated[float, typer.Option(help="Largest ratio of the cell's heights.")] = 6.0,
    space_group: Annotated[
        list[int] | None,
        typer.Option(help="Keep only these space groups (numbers).", show_default=False),
    ] = None,
    symprec: Annotated[
        float, typer.Option(help="Symmetry within this, Å, is imposed and reported; 0: none.")
    ] = 0.1,
    pressure: Annotated[float, typer.Option(help="External pressure, GPa.")] = 0.0,
    fmax: Annotated[float, typer.Option(help="Largest force after relaxation, eV/Å.")] = 0.03,
    steps: Annotated[int, typer.Option(min=0, help="Most steps of a relaxation.")] = 300,
    seconds: Annotated[float, typer.Option(help="Most wall time of a relaxation.")] = 300.0,
    duplicate: Annotated[
        float, typer.Option(help="Difference of fingerprints below which crystals are the same.")
    ] = 0.02,
    phonons: Annotated[int, typer.Option(min=0, help="Phonons of so many of the best.")] = 0,
    md: Annotated[int, typer.Option(min=0, help="Molecular dynamics of so many of the best.")] = 0,
    md_steps: Annotated[int, typer.Option(min=1, help="Steps of 1 fs.")] = 1000,
    md_ensemble: Annotated[str, typer.Option(help="As in pet-calc md.")] = "nvt-langevin",
    temperature: Annotated[float, typer.Option(help="Of the molecular dynamics, K.")] = 300.0,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("generate_out"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Do only what the output folder lacks.")
    ] = False,
    overwrite: OverwriteOption = False,
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
    from dataclasses import replace

    from rich.console import Console

    from pet_calc.cli.relax import check_same
    from pet_calc.crystals.diffusion.config import SamplerConfig
    from pet_calc.crystals.generation.config import (
        DEFAULT_SOURCES,
        GenerateConfig,
        default_relaxation,
    )
    from pet_calc.crystals.generation.geometry_window import GeometryWindow
    from pet_calc.crystals.generation.hull import Hull
    from pet_calc.crystals.generation.pipeline import generate as run
    from pet_calc.crystals.generation.results import OUTPUT_FILES, OUTPUT_FOLDERS, write_results
    from pet_calc.io.models.weights import write_atomically
    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.progress import progress_bar

    settings = GenerateConfig(
        formula=formula,
        z=whole_numbers(z, "--z"),
        n=n,
        sources=tuple(source or DEFAULT_SOURCES),
        seed=seed,
        sampler=SamplerConfig(
            method="ddim" if ddim else "ddpm", steps=sampler_steps, guidance=guidance
        ),
        window=GeometryWindow(contact=contact, aspect=aspect, lengths=(min_length, max_length)),
        symprec=symprec,
        space_groups=tuple(space_group or ()),
        relax=replace(
            default_relaxation(), pressure=pressure, fmax=fmax, steps=steps, seconds=seconds
        ),
        duplicate=duplicate,
        phonons=phonons,
        md=md,
        md_steps=md_steps,
        md_ensemble=md_ensemble,
        temperature=temperature,
        within=tuple(s.strip() for s in within.split(",") if s.strip()),
        atoms=whole_numbers(atoms, "--atoms") if atoms else (),
    )
    if resume and overwrite:
        raise typer.BadParameter("--resume keeps what --overwrite replaces; give one of the two")
    known = (*OUTPUT_FILES, *OUTPUT_FOLDERS, SETTINGS)
    claim_folder(out, known, overwrite=overwrite or resume)
    competitors = None if hull is None else Hull.load(hull)
    frames = None if templates is None else read_structures(templates)
    potential = make_calculator(model, calculator, device, static_precision(dtype, calculator))
    options = {**resolved_options(context), "dtype": static_precision(dtype, calculator)}
    origin = provenance(potential, seed=seed, packages=("ase", "numpy", "torch", "spglib"))
    text = settings_toml("settings of pet-calc generate", options, origin)
    if resume:
        check_same(out / SETTINGS, text)
    else:
        clear_folder(out, (*OUTPUT_FILES, SETTINGS))
        clear_folder(out / "relax", ("journal.jsonl", "relax.csv", "relaxed.extxyz"))
        for path in (out / "tests").glob("*.json"):
            path.unlink()
    write_atomically(out / SETTINGS, text.encode())
    console = Console()
    with progress_bar() as progress:
        task = progress.add_task("proposals", total=n)
        result = run(
            settings,
            potential,
            out,
            hull=competitors,
            templates=frames,
            resume=resume,
            on_stage=lambda stage: progress.update(task, description=stage),
            on_result=lambda index, outcome: progress.advance(task),
        )
    write_results(result, out, {k: v for k, v in options.items() if v is not None}, symprec)
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    console.print(summary(result, out))
    raise typer.Exit(0 if result.kept else 1)


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """``"1,2,4"`` as numbers."""
    try:
        return tuple(dict.fromkeys(int(part) for part in str(text).split(",")))
    except ValueError as error:
        raise typer.BadParameter(
            f"write whole numbers separated by commas, as in 1,2,4, got {text!r}",
            param_hint=option,
        ) from error


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
def build(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Competing structures, in formats that ASE reads.")
    ],
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    fmax: Annotated[float, typer.Option(help="Largest force after relaxation, eV/Å.")] = 0.02,
    steps: Annotated[int, typer.Option(min=0, help="Most steps; 0: energies as given.")] = 300,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("hull_out"),
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Relax competing phases and their elements with one potential, for pet-calc generate --hull.

    For example:

      pet-calc hull build CuAu.cif Cu3Au.cif --calculator ase.calculators.emt:EMT --out hull

    Writes hull.json and hull.toml. The elements' references are ASE's reference states.
    """
    from rich.console import Console

    from pet_calc.crystals.generation.references import build_hull
    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.progress import progress_bar
    from pet_calc.workflows.relax import RelaxConfig

    claim_folder(out, ("hull.json", "hull.toml"), overwrite=overwrite)
    structures: list[Any] = []
    names: list[str] = []
    for path in files:
        frames = read_structures(path)
        structures += frames
        names += [f"{path.name} {k}" for k in range(len(frames))]
    potential = make_calculator(model, calculator, device, static_precision(dtype, calculator))
    relax = RelaxConfig(cell="free" if steps else "fixed", fmax=fmax, steps=steps)
    with progress_bar() as bar:
        task = bar.add_task("relaxation", total=None)
        found, reasons = build_hull(
            structures,
            potential,
            relax,
            names,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    found.save(out / "hull.json")
    options = {**resolved_options(context), "dtype": static_precision(dtype, calculator)}
    text = settings_toml("settings of pet-calc hull build", options, provenance(potential))
    (out / "hull.toml").write_text(text, encoding="utf-8")
    console = Console()
    for name, reason in reasons.items():
        console.print(f"left out {name}: {reason}", highlight=False, markup=False)
    console.print(f"{len(found.phases)} phases in {out / 'hull.json'}", highlight=False)
