"""What a terminal shows during a run: a bar with speed, temperature and drift."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.log import MDLog, MDSample, drift_per_atom
from pet_calc.workflows.progress import progress_bar, stderr_console

#: Samples that the slope of the conserved energy is taken from, at most.
MOST_SAMPLES = 2000


class MDProgress:
    """Progress of one run; pass it as `on_step` to :func:`run_md`.

    The first two steps are reported in a line each, so that a user sees at once that the potential
    works and how long a step takes. Where the output is no terminal (a batch job's file), a line
    every tenth of the run replaces the bar.

    >>> with MDProgress(config, n_atoms=len(atoms)) as progress:
    ...     run_md(atoms, config, "out", on_step=progress)
    """

    def __init__(self, config: MDConfig, n_atoms: int, console: Console | None = None) -> None:
        self.config = config
        self.n_atoms = n_atoms
        self.console = stderr_console() if console is None else console
        self._samples: list[MDSample] = []
        self._interval = config.log_interval
        self._redrawn = -math.inf
        self._started = math.nan
        self._bar = progress_bar(
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=False,
        )
        self._task = self._bar.add_task("MD", total=config.steps, state="")

    def __enter__(self) -> MDProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, sample: MDSample) -> None:
        """Show a sample."""
        now = time.perf_counter()
        first = math.isnan(self._started)
        if first:
            self._started = now
        if first and sample.step > 0:
            self._line(f"continued after step {sample.step - 1}: {sample.temperature:.0f} K")
        if sample.step == 0:
            self._line(
                f"start: {self.n_atoms} atoms, potential energy "
                f"{sample.potential / self.n_atoms:.4f} eV/atom, {sample.temperature:.0f} K"
            )
        elif sample.step == 1:
            seconds = now - self._started
            # no estimate from it: the first step also pays for starting the threads
            self._line(f"first step done in {1e3 * seconds:.0f} ms")
        if sample.step % self._interval == 0:
            self._samples.append(sample)
        if len(self._samples) > MOST_SAMPLES:
            # the slope needs no more; every other one keeps memory and time of a line bounded
            self._interval *= 2
            self._samples = [s for s in self._samples if s.step % self._interval == 0]
        last = sample.step == self.config.steps
        if self.console.is_terminal:
            if last or now - self._redrawn > 0.25:
                self._redrawn = now
                self._bar.update(self._task, completed=sample.step, state=self._state(sample))
        elif sample.step > 0 and (last or sample.step % max(1, self.config.steps // 10) == 0):
            self._line(f"step {sample.step}/{self.config.steps}  {self._state(sample)}")

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _state(self, sample: MDSample) -> str:
        slope = drift_per_atom(MDLog.from_samples(self._samples), self.n_atoms)
        return (
            f"{sample.ns_per_day:.3g} ns/day  {sample.temperature:4.0f} K  "
            f"drift {slope} meV/atom/ps"
        )
