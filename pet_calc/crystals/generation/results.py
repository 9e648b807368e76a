"""Files of a generation: one row, one frame and one page for all candidates, in one order."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final

from ase.io import write

from pet_calc.crystals.generation.pipeline import Candidate, Generation
from pet_calc.crystals.generation.proposals import FILE as PROPOSALS
from pet_calc.crystals.generation.proposals import symmetrized
from pet_calc.errors import MissingDependencyError
from pet_calc.io.models.files import write_atomically
from pet_calc.io.runs.provenance import stamp
from pet_calc.io.structures.extxyz import extxyz_frame
from pet_calc.workflows.relax.symmetry import symmetry_available
from pet_calc.workflows.report import Section, Structures, Table, Text, write_report

TABLE, FRAMES, PAGE, CIFS = "candidates.csv", "candidates.extxyz", "candidates.html", "cif"
OUTPUT_FILES: Final = (TABLE, FRAMES, PAGE, PROPOSALS)
#: Folders of a run, whose content is its own.
OUTPUT_FOLDERS: Final = (CIFS, "relax", "tests", "md")


def columns(result: Generation) -> tuple[str, ...]:
    """Headings of the table; the energy is named for what it is relative to."""
    return (
        *("rank", "id", "source", "formula", "z", "n_atoms", "status", "reason", "duplicate_of"),
        *("energy_eV_per_atom", f"{result.energy_column}_eV_per_atom", "hull_id", "hull_reason"),
        *("decomposition", "space_group_proposed", "space_group", "rmsd_A", "volume_A3_per_atom"),
        *("steps", "lowest_frequency_THz", "md"),
    )


def row(result: Generation, rank: int, c: Candidate) -> dict[str, Any]:
    """A candidate's row; what is not known stays empty, an energy that has a reason is nan."""
    atoms = c.atoms if c.atoms is not None else c.proposal.atoms
    relaxed = c.atoms is not None
    values = {
        "rank": rank if c.kept else "",
        "id": c.proposal.id,
        "source": c.proposal.source,
        "formula": "" if atoms is None else atoms.get_chemical_formula(),
        "z": c.proposal.z,
        "n_atoms": "" if atoms is None else len(atoms),
        "status": c.status,
        "reason": " ".join(c.reason.split()),
        "duplicate_of": c.duplicate_of,
        "energy_eV_per_atom": c.energy if relaxed else "",
        f"{result.energy_column}_eV_per_atom": c.above_hull if relaxed else "",
        "hull_id": result.hull_id if relaxed else "",
        "hull_reason": c.hull_reason,
        "decomposition": c.decomposition,
        "space_group_proposed": c.proposal.space_group,
        "space_group": c.space_group,
        "rmsd_A": c.rmsd if relaxed else "",
        "volume_A3_per_atom": c.atoms.get_volume() / len(c.atoms) if c.atoms is not None else "",
        "steps": c.steps if relaxed else "",
        "lowest_frequency_THz": "" if math.isnan(c.lowest_frequency) else c.lowest_frequency,
        "md": c.md,
    }
    return {name: values[name] for name in columns(result)}


def write_results(result: Generation, out: Path, settings: dict[str, Any], symprec: float) -> None:
    """Write table, frames, symmetrized CIFs of the kept crystals, and the page.

    The frames are those of the table's rows that have a relaxed crystal, in the same order.
    """
    rows = [row(result, k + 1, c) for k, c in enumerate(result.candidates)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(result), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(out / TABLE, text.getvalue().encode())
    frames = []
    for r, c in zip(rows, result.candidates, strict=True):
        if c.atoms is None:
            continue
        atoms = c.atoms.copy()
        atoms.calc = c.atoms.calc
        stamp(atoms, result.origin)
        info = {k: r[k] for k in ("id", "source", "status", "space_group", "z")}
        frames.append(extxyz_frame(atoms, info))
    write_atomically(out / FRAMES, "".join(frames).encode())
    shutil.rmtree(out / CIFS, ignore_errors=True)
    (out / CIFS).mkdir()
    for k, c in enumerate(result.kept):
        assert c.atoms is not None
        shown = symmetrized(c.atoms, symprec or 1e-2) if symmetry_available() else c.atoms
        write(out / CIFS / f"{k + 1:03d}_{c.proposal.id}.cif", shown, format="cif")
    write_page(result, rows, out / PAGE, settings)


def write_page(
    result: Generation, rows: list[dict[str, Any]], path: Path, settings: dict[str, Any]
) -> None:
    """The HTML page, with a 3-D view of the kept crystals where chemiscope is installed."""
    counts = Counter(c.status for c in result.candidates)
    sources = Counter(c.proposal.source for c in result.candidates)
    kept = result.kept
    name = result.energy_column
    shown = ("rank", "id", "n_atoms", "energy_eV_per_atom", f"{name}_eV_per_atom", "space_group",
             "rmsd_A", "lowest_frequency_THz", "md")  # fmt: skip
    items: list[Any] = [
        Text(", ".join(f"{n} {s}" for s, n in counts.most_common()) + "; proposed by "
             + ", ".join(f"{s} ({n})" for s, n in sources.items())),
        *(Text(note) for note in result.notes),
        Table(shown, [[r[c] for c in shown] for r in rows[: len(kept)]]),
    ]  # fmt: skip
    others = ("id", "status", "reason")
    sections = [Section("Crystals by energy", items)]
    if len(rows) > len(kept):
        rest = [[r[c] for c in others] for r in rows[len(kept) :]]
        sections.append(Section("Not kept", [Table(others, rest)]))
    structures = None
    if kept:
        atoms = [c.atoms for c in kept if c.atoms is not None]
        energies = [c.above_hull if math.isfinite(c.above_hull) else c.energy for c in kept]
        properties = {
            "volume": ([a.get_volume() / len(a) for a in atoms], "Å³/atom"),
            name: (energies, "eV/atom"),
        }
        structures = Structures(atoms, properties, trajectory=False)
    title = f"Crystals of {settings.get('formula', '')}"
    arguments: dict[str, Any] = {"settings": settings, "provenance": result.origin}
    try:
        write_report(path, title, sections, structures=structures, **arguments)
    except MissingDependencyError as error:
        sections.append(Section("Structures", [Text(str(error))]))
        write_report(path, title, sections, **arguments)
