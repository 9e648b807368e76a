"""The log of a training run, ``log.csv``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

from pet_calc.errors import OutputError

LOG_COLUMNS: Final = (
    "step", "stage", "learning_rate", "loss", "train_forces_rmse",
    "validation_energy_mae", "validation_forces_rmse", "validation_stress_rmse",
)  # fmt: skip


def append_log(path: Path, row: list[Any]) -> None:
    """Append a row to the CSV log, with the header on a new file."""
    new = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.writer(handle)
        if new:
            writer.writerow(LOG_COLUMNS)
        writer.writerow(row)


def truncate_log(path: Path, step: int) -> None:
    """Drop rows beyond `step`: they were written after the checkpoint that is resumed from.

    Raises
    ------
    OutputError
        If the file is not the log of a training.
    """
    if not path.exists():
        return
    with path.open(newline="") as handle:
        header, *rows = list(csv.reader(handle)) or [[]]
    if tuple(header) != LOG_COLUMNS:
        raise OutputError(
            f"{path} must be the log of this training, but its columns are {header}; choose "
            f"another folder for the run"
        )
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header, *(r for r in rows if int(r[0]) <= step)])
