"""``pet-calc relax``: relaxation of structures from files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import read_structures
from pet_calc.cli.options import ConfigOption, Potential, ResumedFolder, Structures
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run
from pet_calc.workflows.relax.config import RelaxConfig

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console
    from rich.table import Table

    from pet_calc.workflows.relax.journal import Entry, Journal

OUTPUTS = ("relax.csv", "relaxed.extxyz", "journal.jsonl")
#: Options that another run may change and still continue the folder.
FREE = ("files", "total_seconds", "batch", "batch_edges")


@options_of(out=Path("relax_out"))
def relax(
    context: typer.Context,
    structures: Structures,
    settings: Annotated[RelaxConfig, "Relaxation"],
    potential: Potential,
    folder: ResumedFolder,
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
    began = time.monotonic()
    run = Run(context, folder, OUTPUTS)
    entries = read_entries(structures)
    from pet_calc.workflows.progress import ProgressBar
    from pet_calc.workflows.relax import relax_all, with_calculator
    from pet_calc.workflows.relax.journal import Journal
    from pet_calc.workflows.relax.result import failed

    calculator = potential.load()
    readable = with_calculator((e.atoms for e in entries if e.atoms is not None), calculator)
    objection = check_all(readable, calculator, settings)
    origin = run.begin(calculator, packages=("ase", "numpy", "torch", "spglib"), free=FREE)
    journal = Journal(run.out, entries, origin, resume=folder.resume)
    todo = [k for k in journal.missing if entries[k].atoms is not None]
    for k in set(journal.missing) - set(todo):
        journal.add(k, failed(None, entries[k].problem))
    waiting = [a for k in todo if (a := entries[k].atoms) is not None]
    announce(run.console, journal, waiting, calculator)
    if len(waiting) > 1 and settings.batch is None and objection is not None:
        run.console.print(f"one by one: {objection}", highlight=False)
    try:
        if settings.total_seconds is not None:
            left = max(began + settings.total_seconds - time.monotonic(), 1e-9)
            settings = replace(settings, total_seconds=left)
        with ProgressBar() as progress:
            relax_all(
                with_calculator(waiting, calculator),
                settings,
                on_progress=progress,
                on_result=lambda position, outcome: journal.add(todo[position], outcome),
            )
    finally:
        journal.finish()
    rows = [line["row"] for line in journal.all_lines]
    run.console.print(summary(rows, run.out))
    if any(row["energy_eV_per_atom"] != "" for row in rows):
        run.page()
    raise typer.Exit(0 if all(row["status"] == "converged" for row in rows) else 1)


def check_all(structures: list[Atoms], calculator: Any, settings: RelaxConfig) -> str | None:
    """Choose one potential for all; why they are not relaxed in a batch, None if they can be.

    Raises
    ------
    PetCalcError
        If none of the structures can be relaxed: an earlier run then keeps its files.
    ValueError
        If a batch is asked for that is not possible.
    """
    from pet_calc.workflows.relax import why_not_batched
    from pet_calc.workflows.relax.many import settle_model, starting_problem

    settle_model(structures, calculator)
    problems = [starting_problem(atoms, settings) for atoms in structures]
    if all(problem is not None for problem in problems):
        raise problems[0] or ValueError("there is no structure to relax")
    objection = why_not_batched(structures, settings)
    if settings.batch and len(structures) > 1 and objection is not None:
        raise ValueError(f"--batch is not possible: {objection}")
    return objection


def read_entries(structures: Structures) -> list[Entry]:
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
    for path in structures.files:
        try:
            frames = read_structures(path, structures.index)
        except InvalidStructureError as error:
            errors.append(error)
            entries.append(Entry(str(path), 0, None, str(error)))
        else:
            entries += [Entry(str(path), k, atoms) for k, atoms in enumerate(frames)]
    if len(errors) == len(entries):
        raise errors[0]
    return entries


def announce(console: Console, journal: Journal, waiting: list[Any], potential: Any) -> None:
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
