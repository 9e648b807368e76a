"""The record of a run: one row per sample, and the statistics that are drawn from it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class Estimate(NamedTuple):
    """A value and its standard error; the error is NaN where the data cannot tell."""

    value: float
    error: float

    def __str__(self) -> str:
        """``304 ± 4``: digits as far as the error allows; ``–`` for no data."""
        if not math.isfinite(self.value):
            return "–"
        if not math.isfinite(self.error) or self.error <= 0.0:
            return f"{self.value:.3g}"
        first = math.floor(math.log10(self.error))
        # an error that begins with 1 keeps a second digit
        decimals = max(0, 1 - first if self.error < 2 * 10.0**first else -first)
        return f"{self.value:.{decimals}f} ± {self.error:.{decimals}f}"


def block_mean(values: Array, n_blocks: int = 10) -> Estimate:
    """Mean of a correlated series, with the error from the scatter of block means.

    The error is right when a block is longer than the correlation time (Flyvbjerg and Petersen,
    J. Chem. Phys. 91, 461 (1989)). Samples left over at the start, fewer than `n_blocks`, are
    dropped from the error only.

    Parameters
    ----------
    values : array, shape (n_samples,)
    n_blocks : int
        Number of blocks.
    """
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"))
    mean = float(values.mean())
    length = len(values) // n_blocks
    if length == 0:
        return Estimate(mean, float("nan"))
    blocks = values[-n_blocks * length :].reshape(n_blocks, length).mean(axis=1)
    return Estimate(mean, float(blocks.std(ddof=1) / np.sqrt(n_blocks)))


def drift(time: Array, energy: Array, n_blocks: int = 20) -> Estimate:
    r"""Slope of a conserved energy, by least squares over block means.

    .. math:: b = \frac{\sum_k (t_k - \bar t)\,(E_k - \bar E)}{\sum_k (t_k - \bar t)^2}, \qquad
       \sigma_b^2 = \frac{\sum_k r_k^2}{(n - 2) \sum_k (t_k - \bar t)^2}

    with :math:`r_k` the residuals of the block means :math:`E_k`. Samples of one series are
    correlated, so that the textbook error over samples would be several times too small; the block
    means are not, once a block spans a few vibrations.

    Parameters
    ----------
    time : array, shape (n_samples,)
        Any unit.
    energy : array, shape (n_samples,)
        Any unit; the result is in energy per time.
    n_blocks : int
        At most this many blocks; each holds at least one sample.
    """
    n = min(n_blocks, len(time))
    if n < 3:
        return Estimate(float("nan"), float("nan"))
    length = len(time) // n
    t = time[-n * length :].reshape(n, length).mean(axis=1)
    e = energy[-n * length :].reshape(n, length).mean(axis=1)
    t, e = t - t.mean(), e - e.mean()
    spread = float(t @ t)
    slope = float(t @ e) / spread
    residual = e - slope * t
    return Estimate(slope, float(np.sqrt(residual @ residual / ((n - 2) * spread))))


def drift_per_atom(log: MDLog, n_atoms: int) -> Estimate:
    """Drift of the conserved energy of a run, meV/atom/ps."""
    return drift(log.time / 1e3, 1e3 * log.conserved / n_atoms)
