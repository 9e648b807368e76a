"""How far a calculation has come: what workflows report, and how a terminal shows it.

Bars are on stderr, so that results can be piped, and only where that is a terminal. What a verb
reports while it works goes to stderr as well, through the console of the bar; standard output holds
the results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

T = TypeVar("T")

#: Seconds between two updates of a bar.
REDRAW = 0.25

_state = {"silent": False}


def silence() -> None:
    """No bars and no lines about progress from here on, for ``pet-calc --quiet``."""
    _state["silent"] = True


def stderr_console() -> Console:
    """Where progress is shown."""
    return Console(stderr=True, quiet=_state["silent"])


@dataclass(frozen=True)
class Progress:
    """How far a calculation has come: what the `on_progress` of every workflow is called with.

    Attributes
    ----------
    stage : str
        What is being computed, in a word or two.
    done : int
        How many of its steps, structures, supercells or volumes are done.
    total : int or None
        Of how many; None where that is unknown.
    text : str
        The state in words.
    values : dict of str to float
        The state in numbers, under names that end in their units, such as ``fmax_eV_per_A``.
    """

    stage: str
    done: int = 0
    total: int | None = None
    text: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        count = "" if self.total is None else f" {self.done}/{self.total}"
        return f"{self.stage}{count}{': ' if self.text else ''}{self.text}"


#: What a workflow calls as it advances; ``print`` will do.
OnProgress = Callable[[Progress], object]


def in_stage(on_progress: OnProgress | None, stage: str) -> OnProgress | None:
    """A callback that reports under the name of another stage; None stays None."""
    if on_progress is None:
        return None
    return lambda progress: on_progress(replace(progress, stage=stage))


def progress_bar(
    *columns: ProgressColumn, console: Console | None = None, transient: bool = True
) -> RichProgress:
    """A bar, to be entered with ``with``, whose tasks have a description and a total.

    Parameters
    ----------
    columns : ProgressColumn
        What follows the description and the bar; by default the count and the time left.
    console : Console, optional
        By default stderr.
    transient : bool
        Remove the bar when it is done.
    """
    console = stderr_console() if console is None else console
    return RichProgress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        *(columns or (MofNCompleteColumn(), TimeRemainingColumn())),
        console=console,
        transient=transient,
        disable=console.quiet or not console.is_terminal,
        # what others print meanwhile goes above the bar, unless it goes elsewhere altogether
        redirect_stdout=sys.stdout.isatty(),
    )


class ProgressBar:
    """A bar for the `on_progress` of any workflow.

    Each stage begins with a line; where the output is no terminal (a batch job's file), a line for
    every tenth of it replaces the bar.

    >>> with ProgressBar() as progress:
    ...     run_md(atoms, config, on_progress=progress)
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = stderr_console() if console is None else console
        self._bar = progress_bar(
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            transient=False,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._redrawn = 0.0
        self._tenths = 0

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show where a calculation is."""
        begins = self._task is None or progress.stage != self._stage
        if self._task is None:
            self._task = self._bar.add_task(progress.stage, total=progress.total, state="")
        if begins:
            self._stage, self._tenths = progress.stage, 0
            self._bar.reset(self._task, total=progress.total, description=progress.stage, state="")
        ends = progress.done == progress.total
        tenths = 10 * progress.done // progress.total if progress.total else 0
        if self.console.is_terminal:
            now = time.monotonic()
            if begins and progress.text:
                self._line(f"{progress.stage}: {progress.text}")
            if begins or ends or now - self._redrawn > REDRAW:
                self._redrawn = now
                self._bar.update(
                    self._task,
                    completed=progress.done,
                    total=progress.total,
                    state="" if begins else progress.text,
                )
        elif (begins and progress.text) or tenths > self._tenths:
            self._line(str(progress))
        self._tenths = tenths

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


@contextmanager
def pulsing(text: str) -> Iterator[None]:
    """A bar that moves to and fro while work of unknown length goes on."""
    with progress_bar(TimeElapsedColumn()) as bar:
        bar.add_task(text, total=None)
        yield


def tracked(items: Sequence[T], text: str) -> Iterator[T]:
    """The items, counted by a bar as they are taken."""
    with progress_bar() as bar:
        yield from bar.track(items, description=text)
