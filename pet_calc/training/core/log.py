"""The log of a training, ``log.csv``: one row per validation, epoch or interval of steps."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pet_calc.errors import OutputError

LOG: Final = "log.csv"


def append_log(path: Path, row: Mapping[str, float]) -> None:
    """Append a row, with the names of its columns on a new file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if new:
            writer.writerow(row)
        writer.writerow(row.values())


def truncate_log(path: Path, columns: Sequence[str], last: int) -> None:
    """Drop rows beyond the step or epoch `last`: the run goes on from a checkpoint before them.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        The first ones of the log. Its first column counts steps or epochs.
    last : int

    Raises
    ------
    OutputError
        If the file is not the log of a training.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as handle:
        header, *rows = list(csv.reader(handle)) or [[]]
    if header[: len(columns)] != list(columns):
        raise OutputError(
            f"{path} must be the log of this training, but its columns are {header}; choose "
            f"another folder for the run"
        )
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *(r for r in rows if int(r[0]) <= last)])
