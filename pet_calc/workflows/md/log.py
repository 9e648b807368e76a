"""The record of a run: one row per sample, and the statistics that are drawn from it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pet_calc.workflows.statistics import Estimate, drift

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MDSample:
    """State of a run at one step.

    Attributes
    ----------
    step : int
        0 is the start.
    time : float
        fs.
    potential, kinetic, total : float
        eV.
    conserved : float
        Total energy less what thermostat, barostat and swap moves gave, eV.
    temperature : float
        Kinetic temperature, K.
    ns_per_day : float
        Simulated ns per day of wall time since the run was started or continued; NaN before the
        first step.
    volume : float
        Å³; NaN, as density and pressure, where not all directions are periodic.
    pressure : float
        Internal pressure with its kinetic part, GPa, positive in compression; NaN where the
        calculator did not compute the stress.
    density : float
        g/cm³.
    swap_acceptance : float
        Accepted part of the swap moves so far; NaN without them.
    """

    step: int
    time: float
    potential: float
    kinetic: float
    total: float
    conserved: float
    temperature: float
    ns_per_day: float
    volume: float = math.nan
    pressure: float = math.nan
    density: float = math.nan
    swap_acceptance: float = math.nan


CSV_COLUMNS = (
    "step",
    "time_fs",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "conserved_eV",
    "temperature_K",
    "ns_per_day",
    "volume_A3",
    "pressure_GPa",
    "density_g_cm3",
    "swap_acceptance",
)


def csv_row(sample: MDSample) -> list[str]:
    """A sample as the row of the log file, with all digits of what is computed."""
    return [
        str(sample.step),
        f"{sample.time:.6g}" if sample.time < 1e5 else f"{sample.time:.3f}",
        *(repr(x) for x in (sample.potential, sample.kinetic, sample.total, sample.conserved)),
        repr(sample.temperature),
        f"{sample.ns_per_day:.5g}",
        *(repr(x) for x in (sample.volume, sample.pressure, sample.density)),
        repr(sample.swap_acceptance),
    ]


@dataclass(frozen=True, eq=False)
class MDLog:
    """Samples of a run as arrays of shape (n_samples,), in the units of :class:`MDSample`."""

    step: NDArray[np.int64]
    time: Array
    potential: Array
    kinetic: Array
    total: Array
    conserved: Array
    temperature: Array
    ns_per_day: Array
    volume: Array
    pressure: Array
    density: Array
    swap_acceptance: Array

    @classmethod
    def from_samples(cls, samples: Iterable[MDSample]) -> MDLog:
        """Gather samples in the order given."""
        rows = list(samples)
        columns = {
            name: np.array([getattr(row, name) for row in rows], dtype=np.float64)
            for name in MDSample.__dataclass_fields__
            if name != "step"
        }
        return cls(step=np.array([row.step for row in rows], dtype=np.int64), **columns)

    @classmethod
    def read(cls, path: Path | str, size: int = -1) -> MDLog:
        """Read the CSV file that a run wrote, or its first `size` bytes."""
        with Path(path).open("rb") as file:
            reader = csv.reader(file.read(size).decode("utf-8").splitlines())
        header = next(reader, None)
        if header != list(CSV_COLUMNS):
            raise ValueError(
                f"{path} must start with the columns {', '.join(CSV_COLUMNS)}, got {header}"
            )
        return cls.from_samples(MDSample(int(row[0]), *map(float, row[1:])) for row in reader)

    def __len__(self) -> int:
        return len(self.step)

    def after(self, time: float) -> MDLog:
        """The samples at `time` (fs) and later."""
        keep = self.time >= time
        return MDLog(**{name: getattr(self, name)[keep] for name in self.__dataclass_fields__})


def drift_per_atom(log: MDLog, n_atoms: int) -> Estimate:
    """Drift of the conserved energy of a run, meV/atom/ps."""
    return drift(log.time / 1e3, 1e3 * log.conserved / n_atoms)
