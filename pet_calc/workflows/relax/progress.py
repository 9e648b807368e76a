"""What a terminal shows while many structures are relaxed."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn

from pet_calc.workflows.progress import progress_bar, stderr_console
from pet_calc.workflows.relax.result import Relaxation


class RelaxProgress:
    """Bar of the structures that are done; a line for each tenth where there is no terminal.

    >>> with RelaxProgress(len(structures)) as progress:
    ...     relax_all(structures, calc, on_result=progress.on_result, on_step=progress.on_step)

    With `moves` false, single points are counted, of which none can converge.
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        name: str = "relaxation",
        *,
        moves: bool = True,
    ) -> None:
        self.console = stderr_console() if console is None else console
        self.total = total
        self.name = name
        self.moves = moves
        self.done = 0
        self.unfinished = 0
        self._redrawn = 0.0
        self._bar = progress_bar(
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=False,
        )
        self._task = self._bar.add_task(name, total=total, state="")

    def __enter__(self) -> RelaxProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_step(self, together: int, force: float) -> None:
        """Show the largest force of the structures that move at present."""
        now = time.monotonic()
        if self.console.is_terminal and now - self._redrawn > 0.25:
            self._redrawn = now
            state = f"{together} at a time, largest force {force:.4f} eV/Å"
            self._bar.update(self._task, state=state)

    def on_result(self, index: int, outcome: Relaxation) -> None:
        """Count a structure that is done."""
        self.done += 1
        self.unfinished += not outcome.converged
        if self.console.is_terminal:
            self._bar.update(self._task, completed=self.done)
        elif self.done == self.total or self.done % max(1, self.total // 10) == 0:
            failed = f", {self.unfinished} not converged" if self.moves else ""
            self.console.print(
                f"{self.name}: {self.done}/{self.total} done{failed}", highlight=False, markup=False
            )
