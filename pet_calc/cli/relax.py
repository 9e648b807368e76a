"""``pet-calc relax``: relaxation of structures from files."""

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
    load_table,
    make_calculator,
    read_guards,
    read_structures,
    resolved_options,
)
from pet_calc.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelOption,
    OverwriteOption,
    ReportOption,
    page,
    static_precision,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.workflows.relax.journal import Entry, Journal

SETTINGS = "relax.toml"
#: Options that another run may change and still continue the folder.
FREE = ("files", "total_seconds", "batch", "batch_edges", "device", "out", "report")


class OptimizerChoice(StrEnum):
    """Optimizers of ASE."""

    fire = "fire"
    bfgs = "bfgs"
    lbfgs = "lbfgs"


class CellChoice(StrEnum):
    """What the cell may do."""

    fixed = "fixed"
    free = "free"
    isotropic = "isotropic"
    shape = "shape"


def relax(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="Structure files in any format that ASE reads; all their frames."),
    ],
    index: Annotated[str, typer.Option(help="Frames of each file, as ASE writes them.")] = ":",
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    optimizer: Annotated[OptimizerChoice, typer.Option(help="Optimizer.")] = OptimizerChoice.fire,
    cell: Annotated[
        CellChoice,
        typer.Option(help="free: six strains; isotropic: volume only; shape: at constant volume."),
    ] = CellChoice.fixed,
    pressure: Annotated[float, typer.Option(help="External pressure, GPa.")] = 0.0,
    fmax: Annotated[float, typer.Option(help="Largest force at the end, eV/Å.")] = 0.01,
    steps: Annotated[int, typer.Option(min=0, help="Most steps per structure.")] = 500,
    seconds: Annotated[
        float | None,
        typer.Option(help="Most wall time per structure.", show_default=False),
    ] = None,
    total_seconds: Annotated[
        float | None,
        typer.Option(help="Most wall time in all; --resume continues.", show_default=False),
    ] = None,
    fix_symmetry: Annotated[
        bool, typer.Option("--fix-symmetry", help="Impose and keep the space group of the start.")
    ] = False,
    symprec: Annotated[
        float, typer.Option(help="Distance within which --fix-symmetry looks for it, Å.")
    ] = 1e-2,
    guard: GuardOption = [],  # noqa: B006
    batch: Annotated[
        bool | None,
        typer.Option(
            "--batch/--no-batch",
            help="Many structures in one call of the model; by default where it is possible.",
            show_default=False,
        ),
    ] = None,
    batch_edges: Annotated[
        int | None,
        typer.Option(min=1, help="Most neighbor pairs in a batch.", show_default=False),
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    report: ReportOption = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("relax_out"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Do only what the output folder lacks.")
    ] = False,
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Relax the atoms, and the cell if asked for, of one or many structures.

    For example:

      pet-calc relax POSCAR --cell free --fmax 0.001

      pet-calc relax *.cif --cell free --out relaxed --resume

    Writes relax.toml (the settings in full), relax.csv (a row per structure) and relaxed.extxyz.
    A structure that fails has its reason in its row and does not stop the others; the exit code
    is 1 unless all have converged.
    """
    import time

    from rich.console import Console

    from pet_calc.io.models.weights import write_atomically
    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.relax import RelaxConfig, relax_all, why_not_batched
    from pet_calc.workflows.relax.journal import OUTPUT_FILES, Journal
    from pet_calc.workflows.relax.many import settle_model, starting_problem
    from pet_calc.workflows.relax.progress import RelaxProgress
    from pet_calc.workflows.relax.result import failed
    from pet_calc.workflows.report import REPORT, require_viewer

    began = time.monotonic()
    console = Console()
    settings = RelaxConfig(
        optimizer=optimizer.value,
        cell=cell.value,
        pressure=pressure,
        fmax=fmax,
        steps=steps,
        seconds=seconds,
        fix_symmetry=fix_symmetry,
        symprec=symprec,
        guards=read_guards(guard),
    )
    if total_seconds is not None and not total_seconds > 0:
        raise ValueError(f"`total_seconds` must be a positive number, got {total_seconds}")
    if resume and overwrite:
        raise typer.BadParameter("--resume keeps what --overwrite replaces; give one of the two")
    if report:
        require_viewer()
    names = (*OUTPUT_FILES, SETTINGS, REPORT)
    claim_folder(out, names, overwrite=overwrite or resume)
    entries = read_entries(files, index)
    potential = make_calculator(
        model,
        calculator,
        device,
        static_precision(dtype, calculator),
        ecse,
        variant,
        non_conservative,
    )
    structures = [e.atoms for e in entries if e.atoms is not None]
    settle_model(structures, potential)
    problems = [starting_problem(atoms, potential, settings) for atoms in structures]
    if all(problem is not None for problem in problems):
        # nothing to compute: an earlier run keeps its files
        raise problems[0] or ValueError("there is no structure to relax")
    objection = why_not_batched(structures, potential, settings)
    if batch and len(structures) > 1 and objection is not None:
        raise ValueError(f"--batch is not possible: {objection}")
    options = {**resolved_options(context), "dtype": static_precision(dtype, calculator)}
    origin = provenance(potential, packages=("ase", "numpy", "torch", "spglib"))
    text = settings_toml("settings of pet-calc relax", options, origin)
    if resume:
        check_same(out / SETTINGS, text)
        clear_folder(out, (REPORT,))
    else:
        clear_folder(out, names)
    write_atomically(out / SETTINGS, text.encode())
    journal = Journal(out, entries, origin, resume=resume)
    todo = [k for k in journal.missing if entries[k].atoms is not None]
    for k in set(journal.missing) - set(todo):
        journal.add(k, failed(None, entries[k].problem))
    waiting = [a for k in todo if (a := entries[k].atoms) is not None]
    announce(console, journal, waiting, potential)
    if len(waiting) > 1 and batch is None and objection is not None:
        console.print(f"one by one: {objection}", highlight=False)
    try:
        with RelaxProgress(len(waiting)) as progress:

            def on_result(position: int, outcome: Any) -> None:
                journal.add(todo[position], outcome)
                progress.on_result(position, outcome)

            relax_all(
                waiting,
                potential,
                settings,
                batched=batch,
                max_edges=batch_edges,
                deadline=None if total_seconds is None else began + total_seconds,
                on_result=on_result,
                on_step=progress.on_step,
            )
    finally:
        journal.finish()
    rows = [line["row"] for line in journal.all_lines]
    console.print(summary(rows, out))
    if any(row["energy_eV_per_atom"] != "" for row in rows):
        page(out, report, console)
    raise typer.Exit(0 if all(row["status"] == "converged" for row in rows) else 1)


def read_entries(files: list[Path], index: str) -> list[Entry]:
    """All frames of all files; a file that cannot be read becomes an entry with its problem.

    Raises
    ------
    InvalidStructureError
        If none can be read.
    """
    from pet_calc.errors import InvalidStructureError
    from pet_calc.workflows.relax.journal import Entry

    entries: list[Entry] = []
    errors = []
    for path in files:
        try:
            frames = read_structures(path, index)
        except InvalidStructureError as error:
            errors.append(error)
            entries.append(Entry(str(path), 0, None, str(error)))
        else:
            entries += [Entry(str(path), k, atoms) for k, atoms in enumerate(frames)]
    if len(errors) == len(entries):
        raise errors[0]
    return entries


def check_same(path: Path, text: str) -> None:
    """Refuse to continue a run that had other settings or another potential.

    Raises
    ------
    OutputError
    """
    import tomllib

    from pet_calc.errors import OutputError

    if not path.is_file():
        return
    old, new = load_table(path), tomllib.loads(text)
    different = sorted(
        key
        for key in (old.keys() | new.keys()) - {"provenance", *FREE}
        if old.get(key) != new.get(key)
    )
    then, now = (table.get("provenance", {}) for table in (old, new))
    different += [
        key
        for key in ("calculator", "model", "sha256", "ecse", "variant", "non_conservative")
        if then.get(key) != now.get(key)
    ]
    if different:
        raise OutputError(
            f"{path.parent} was begun with another {', '.join(dict.fromkeys(different))}; "
            f"resume with the settings of {path.name}, or choose another folder"
        )


def announce(console: Any, journal: Journal, waiting: list[Any], potential: Any) -> None:
    """Say what is going to be done, and what is not."""
    from pet_calc.workflows.relax.symmetry import symmetry_available

    taken = len(journal.entries) - len(waiting)
    atoms = sum(len(a) for a in waiting)
    console.print(
        f"{len(waiting)} structure(s), {atoms} atoms, potential {potential.name}"
        + (f"; {taken} done before or unreadable" if taken else ""),
        highlight=False,
    )
    if not symmetry_available():
        console.print(
            'no space groups: spglib is not installed (pip install "pet-calc[phonons]")',
            highlight=False,
            markup=False,
        )


def summary(rows: list[dict[str, Any]], out: Path) -> Table:
    """The closing table: structures that did not converge come first."""
    from collections import Counter

    from rich.markup import escape
    from rich.table import Table

    counts = Counter(row["status"] for row in rows)
    title = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    table = Table(title=f"Relaxation: {title}", caption=f"in {out}: relax.csv, relaxed.extxyz")
    table.add_column("structure", overflow="fold")
    table.add_column("outcome", overflow="fold", max_width=40)
    for name in ("E (eV/atom)", "fmax (eV/Å)", "ΔV (%)", "space group"):
        table.add_column(name)
    order = sorted(rows, key=lambda row: row["status"] == "converged")
    for row in order[:20]:
        outcome = f"{row['status']} in {row['steps']} steps" if row["steps"] != "" else "failed"
        before, after = (row[f"space_group_{when}_0.01"] for when in ("before", "after"))
        done = row["energy_eV_per_atom"] != ""
        table.add_row(
            escape(f"{Path(row['file']).name} {row['frame']} {row['formula']}"),
            escape(f"{row['status']}: {row['reason']}" if row["reason"] else outcome),
            f"{row['energy_eV_per_atom']:.6f}" if done else "",
            f"{row['fmax_eV_per_A']:.5f}" if done else "",
            f"{change:.3f}" if (change := row["volume_change_percent"]) != "" else "",
            before if before == after else f"{before} → {after}",
        )
    if len(rows) > 20:
        table.add_row(f"... {len(rows) - 20} more")
    return table
