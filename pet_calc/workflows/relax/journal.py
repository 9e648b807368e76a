"""The files of a relaxation of many structures, safe against an interruption.

Each structure that is done adds one line to ``journal.jsonl``: its row of the table and its frame.
``relax.csv`` and ``relaxed.extxyz`` are made from the lines, in the order of the input. A resumed
run takes over the lines of structures that are done, and ignores a line that was torn.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms

from pet_calc.io.runs.provenance import stamp
from pet_calc.io.structures.charge_and_spin import state_text
from pet_calc.io.structures.extxyz import extxyz_frame
from pet_calc.units import EV_PER_A3_TO_GPA
from pet_calc.workflows.relax.result import Relaxation
from pet_calc.workflows.relax.symmetry import space_group

JOURNAL, TABLE, FRAMES = "journal.jsonl", "relax.csv", "relaxed.extxyz"
OUTPUT_FILES: Final = (JOURNAL, TABLE, FRAMES)
SYMPRECS: Final = (1e-2, 1e-5)

#: Another run would end in the same way.
FINAL: Final = ("converged", "steps", "stopped", "failed")

VOIGT: Final = ("xx", "yy", "zz", "yz", "xz", "xy")
COLUMNS: Final = (
    *("file", "frame", "formula", "n_atoms", "status", "reason", "steps"),
    *("energy_eV_per_atom", "fmax_eV_per_A", *(f"stress_{ab}_GPa" for ab in VOIGT)),
    *("volume_A3_per_atom", "volume_change_percent"),
    *(f"space_group_{when}_{eps:g}" for eps in SYMPRECS for when in ("before", "after")),
    *("seconds", "potential", "input"),
)


@dataclass(frozen=True, eq=False)
class Entry:
    """One structure of the input: where it comes from, or why it could not be read."""

    file: str
    frame: int
    atoms: Atoms | None
    problem: str = ""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell structures apart; empty if unread."""
        return "" if self.atoms is None else structure_digest(self.atoms)


def structure_digest(atoms: Atoms) -> str:
    """First sixteen digits of the SHA-256 of all of a structure that its relaxation depends on."""
    digest = hashlib.sha256()
    for array, kind in (
        (atoms.numbers, "<i8"),
        (atoms.positions, "<f8"),
        (atoms.cell.array, "<f8"),
        (atoms.pbc, "?"),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    for constraint in atoms.constraints:
        digest.update(repr(constraint.todict()).encode())
    digest.update(state_text(atoms).encode())
    return digest.hexdigest()[:16]


class Journal:
    """Lines of a run in progress, and the files made of them."""

    def __init__(
        self, folder: Path, entries: Sequence[Entry], origin: Mapping[str, Any], *, resume: bool
    ) -> None:
        self.folder = folder
        self.entries = entries
        self.origin = origin
        self.lines: dict[int, dict[str, Any]] = {}
        #: of an earlier run, for structures that are not asked for now
        self.others: list[dict[str, Any]] = []
        if resume:
            self._take_over()
        _replace(folder / JOURNAL, "".join(_dump(line) for line in self.all_lines))

    def _take_over(self) -> None:
        path = self.folder / JOURNAL
        known = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that an interruption tore
            row = found["row"]
            if row["status"] in FINAL:
                known[row["file"], row["frame"], row["input"]] = found
        for k, entry in enumerate(self.entries):
            if entry.digest and (entry.file, entry.frame, entry.digest) in known:
                self.lines[k] = known[entry.file, entry.frame, entry.digest]

        present = {(entry.file, entry.frame) for entry in self.entries}
        self.others = [line for key, line in known.items() if key[:2] not in present]

    @property
    def all_lines(self) -> list[dict[str, Any]]:
        """What is done, in the order of the input; structures not asked for now come last."""
        return [*(self.lines[k] for k in sorted(self.lines)), *self.others]

    @property
    def missing(self) -> list[int]:
        """Entries that are yet to be done."""
        return [k for k in range(len(self.entries)) if k not in self.lines]

    def add(self, index: int, outcome: Relaxation) -> None:
        """Write down the outcome of entry `index`."""
        entry = self.entries[index]
        row = table_row(entry, outcome)
        line = {"row": row, "frame": self._frame(entry, outcome)}
        self.lines[index] = line
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(_dump(line))

    def _frame(self, entry: Entry, outcome: Relaxation) -> str | None:
        if outcome.atoms is None:
            return None
        stamped = outcome.atoms.copy()
        stamped.calc = outcome.atoms.calc
        stamp(stamped, self.origin)
        info = {"source": entry.file, "frame": entry.frame, "status": outcome.status}
        return extxyz_frame(stamped, info)

    def finish(self) -> None:
        """Write the table and the frames, in the order of the input."""
        rows = self.all_lines
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line["row"] for line in rows)
        _replace(self.folder / TABLE, table.getvalue())
        _replace(self.folder / FRAMES, "".join(line["frame"] or "" for line in rows))


def table_row(entry: Entry, outcome: Relaxation) -> dict[str, Any]:
    """A structure's row of ``relax.csv``; what is not known stays empty."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {
        "file": entry.file,
        "frame": entry.frame,
        "status": outcome.status,
        "reason": " ".join(outcome.reason.split()),
        "input": entry.digest,
        "seconds": round(outcome.seconds, 3),
        "potential": outcome.potential,
    }
    if outcome.start is not None:
        row["formula"] = outcome.start.get_chemical_formula()
        row["n_atoms"] = len(outcome.start)
    if outcome.atoms is None or outcome.start is None:
        return row
    atoms = outcome.atoms
    row |= {
        "steps": outcome.steps,
        "energy_eV_per_atom": outcome.energy / len(atoms),
        "fmax_eV_per_A": outcome.fmax,
    }
    if outcome.stress is not None:
        for ab, value in zip(VOIGT, outcome.stress, strict=True):
            row[f"stress_{ab}_GPa"] = float(value) * EV_PER_A3_TO_GPA
    if not math.isnan(outcome.volume_change):
        row["volume_A3_per_atom"] = float(atoms.get_volume()) / len(atoms)
        row["volume_change_percent"] = 100.0 * outcome.volume_change
    for eps in SYMPRECS:
        row[f"space_group_before_{eps:g}"] = space_group(outcome.start, eps)
        row[f"space_group_after_{eps:g}"] = space_group(atoms, eps)
    return row


def _dump(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
