"""Progress bars: on stderr, so that results can be piped, and only where that is a terminal.

What a verb tells while it works goes to stderr as well, through the console of the bar; standard
output holds the results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

_state = {"silent": False}


def silence() -> None:
    """No bars and no lines about progress from here on, for ``pet-calc --quiet``."""
    _state["silent"] = True


def stderr_console() -> Console:
    """Where progress is shown."""
    return Console(stderr=True, quiet=_state["silent"])


def progress_bar(
    *columns: ProgressColumn, console: Console | None = None, transient: bool = True
) -> Progress:
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
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        *(columns or (MofNCompleteColumn(), TimeRemainingColumn())),
        console=console,
        transient=transient,
        disable=console.quiet or not console.is_terminal,
        # what others print meanwhile goes above the bar, unless it goes elsewhere altogether
        redirect_stdout=sys.stdout.isatty(),
    )


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
