"""How results are written: tables, summaries and structures, with their provenance."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_calc.io.runs.provenance import KEY, stamp
from pet_calc.io.structures.extxyz import extxyz_frame

if TYPE_CHECKING:
    from ase import Atoms


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], digits: int | None = 10
) -> None:
    """Rows as CSV, numbers with so many significant digits; None for all that they have."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(
                [f"{x:.{digits}g}" if digits and isinstance(x, float) else x for x in row]
            )


def write_summary(
    path: Path, content: Mapping[str, Any], origin: Mapping[str, Any] | None = None
) -> None:
    """A result as JSON, with its provenance where it is given."""
    record = {**content} if origin is None else {**content, KEY: dict(origin)}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_frames(
    path: Path, frames: Iterable[Atoms], origin: Mapping[str, Any] | None = None
) -> None:
    """Frames with their results and provenance as extended XYZ in full precision."""
    text = ""
    for frame in frames:
        copy = frame.copy()
        copy.calc = frame.calc
        if origin is not None:
            stamp(copy, origin)
        text += extxyz_frame(copy)
    path.write_text(text, encoding="utf-8")
