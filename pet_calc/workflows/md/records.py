"""Trajectory and log, in memory or on disk: there appended to, and cut back to a checkpoint.

An ASE trajectory is a list of blobs with a table of their offsets, and a header that says where
the table is and how long. Restoring the header and cutting the file at its length of then takes
back all that was written since, whole or torn; for the log the cut alone does. (An HDF5 file that
a killed process left open may not open again, which is why none is written here.)
"""

from __future__ import annotations

import copy
import csv
import os
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter

from pet_calc.errors import CheckpointError
from pet_calc.workflows.md.log import CSV_COLUMNS, MDSample, csv_row

TRAJECTORY, LOG = "trajectory.traj", "log.csv"


@dataclass(frozen=True)
class Mark:
    """How long the files were at some moment, and the header of the trajectory.

    Attributes
    ----------
    log_size, trajectory_size : int
        Bytes.
    frames : int
        Frames in the trajectory.
    table : int
        Position of its table of offsets.
    """

    log_size: int = 0
    trajectory_size: int = 0
    frames: int = 0
    table: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing had been written."""
        return self.log_size == 0


class MemoryRecords:
    """Frames and samples of a run that writes nothing."""

    def __init__(self) -> None:
        self.frames: list[Atoms] = []
        self.samples: list[MDSample] = []

    def write_frame(self, atoms: Atoms) -> None:
        """Keep a frame with the results that the calculator holds."""
        frame = atoms.copy()
        assert atoms.calc is not None
        known = {k: v for k, v in atoms.calc.results.items() if k in all_properties}
        frame.calc = SinglePointCalculator(frame, **copy.deepcopy(known))
        self.frames.append(frame)

    def write_row(self, sample: MDSample) -> None:
        """Keep a sample."""
        self.samples.append(sample)


class Records:
    """The open files of a run.

    Parameters
    ----------
    folder : Path
        Receives the files.
    mark : Mark
        Where to continue; an empty one starts new files.
    """

    def __init__(self, folder: Path, mark: Mark | None = None) -> None:
        self.trajectory_file, self.log_file = folder / TRAJECTORY, folder / LOG
        fresh = mark is None or mark.empty
        if mark is not None and not mark.empty:
            cut_back(folder, mark)
        with ExitStack() as stack:
            mode = "w" if fresh else "a"
            self._log = stack.enter_context(self.log_file.open(mode, newline="", encoding="utf-8"))
            self._trajectory = stack.enter_context(TrajectoryWriter(self.trajectory_file, mode))
            self._files = stack.pop_all()
        self._rows = csv.writer(self._log, lineterminator="\n")
        if fresh:
            self._rows.writerow(CSV_COLUMNS)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def write_frame(self, atoms: Atoms) -> None:
        """Append a frame with the results that the calculator holds."""
        self._trajectory.write(atoms)

    def write_row(self, sample: MDSample) -> None:
        """Append a row; it can be read while the run goes on."""
        self._rows.writerow(csv_row(sample))
        self._log.flush()

    def mark(self) -> Mark:
        """The present state of the files, once it is on the disk."""
        for path in (self.trajectory_file, self.log_file):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        backend = self._trajectory.backend
        return Mark(
            log_size=self.log_file.stat().st_size,
            trajectory_size=self.trajectory_file.stat().st_size,
            frames=int(backend.nitems),
            table=int(backend.pos0),
        )


def require_records(folder: Path, mark: Mark) -> None:
    """Raise `CheckpointError` if a file is absent or shorter than it was at `mark`."""
    for name, size in ((TRAJECTORY, mark.trajectory_size), (LOG, mark.log_size)):
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if not mark.empty and (found is None or found < size):
            raise CheckpointError(
                f"the checkpoint continues {path} from byte {size}, but "
                + ("there is no such file" if found is None else f"it has {found} bytes only")
                + "; restore the file, or start anew in another folder"
            )


def cut_back(folder: Path, mark: Mark) -> None:
    """Take back what was written to the files of a run after `mark`."""
    require_records(folder, mark)
    for name, size in ((TRAJECTORY, mark.trajectory_size), (LOG, mark.log_size)):
        with (folder / name).open("r+b") as file:
            file.truncate(size)
            if name == TRAJECTORY:
                # ASE's ulm format: magic and tag take 24 bytes, the version 8
                file.seek(32)
                file.write(struct.pack("=qq", mark.frames, mark.table))
            file.flush()
            os.fsync(file.fileno())
