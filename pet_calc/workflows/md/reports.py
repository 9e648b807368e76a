"""What a run reports as it advances: speed, temperature and drift."""

from __future__ import annotations

import time
from dataclasses import astuple

import numpy as np

from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.log import CSV_COLUMNS, MDSample
from pet_calc.workflows.progress import OnProgress, Progress
from pet_calc.workflows.statistics import drift

#: Samples that the slope of the conserved energy is taken from, at most.
MOST_SAMPLES = 2000


class Reporter:
    """Turns the samples of a run into reports, whose values are the columns of the log.

    Parameters
    ----------
    config : MDConfig
    n_atoms : int
    on_progress : callable
        Called with the `Progress` of every step.
    """

    def __init__(self, config: MDConfig, n_atoms: int, on_progress: OnProgress) -> None:
        self.config = config
        self.n_atoms = n_atoms
        self.on_progress = on_progress
        self._series: list[tuple[int, float]] = []  # step, conserved energy in eV
        self._interval = config.log_interval
        self._began: float | None = None
        self._drift = "–"

    def report(self, sample: MDSample) -> None:
        """Report a step."""
        now = time.perf_counter()
        stage, text = "MD", ""
        if self._began is None:
            self._began = now
            stage = "start" if sample.step == 0 else "continued"
            text = f"after step {sample.step - 1}, {sample.temperature:.0f} K"
            if sample.step == 0:
                per_atom = sample.potential / self.n_atoms
                text = (
                    f"{self.n_atoms} atoms, potential energy {per_atom:.4f} eV/atom, "
                    f"{sample.temperature:.0f} K"
                )
        elif sample.step == 1:
            # no estimate from it: the first step also pays for starting the threads
            text = f"first step done in {1e3 * (now - self._began):.0f} ms"
        last = sample.step == self.config.steps
        if sample.step % self._interval == 0 or last:
            self._keep(sample)
        if not text:
            text = (
                f"{sample.ns_per_day:.3g} ns/day  {sample.temperature:4.0f} K  "
                f"drift {self._drift} meV/atom/ps"
            )
        values = dict(zip(CSV_COLUMNS, map(float, astuple(sample)), strict=True))
        self.on_progress(Progress(stage, sample.step, self.config.steps, text, values))

    def _keep(self, sample: MDSample) -> None:
        self._series.append((sample.step, sample.conserved))
        if len(self._series) > MOST_SAMPLES:
            # the slope needs no more; every other one keeps memory and time bounded
            self._interval *= 2
            self._series = [x for x in self._series if x[0] % self._interval == 0]
        steps, energies = np.array(self._series).T
        ps = steps * self.config.timestep / 1e3
        self._drift = str(drift(ps, 1e3 * energies / self.n_atoms))
