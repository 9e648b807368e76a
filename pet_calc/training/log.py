"""The log of a training run, ``log.csv``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

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
    """Drop rows beyond `step`: they were written after the checkpoint that is resumed from."""
    if not path.exists():
        return
    with path.open(newline="") as handle:
        header, *rows = csv.reader(handle)
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header, *(r for r in rows if int(r[0]) <= step)])
