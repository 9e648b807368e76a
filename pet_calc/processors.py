"""How many processors are there to compute with."""

from __future__ import annotations

import logging
import os
from functools import cache

_log = logging.getLogger("pet_calc")


def free_cores() -> int:
    """Processors that this process may use less those that others keep busy; at least 1."""
    if not hasattr(os, "sched_getaffinity") or not hasattr(os, "getloadavg"):
        return os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0))
    return max(1, usable - round(os.getloadavg()[0]))


@cache
def tell_waiting_threads(threads: int) -> None:
    """Say once in a process that its threads are more than the processors that are free.

    Threads that wait for a busy core make a step many times slower than fewer threads would. Their
    number is the user's, and is not changed here.
    """
    free = free_cores()
    if threads > free:
        _log.warning(
            "torch computes on %d threads, but %d of the processors are free, and threads that "
            "wait are slower than fewer threads; torch.set_num_threads(%d) before the first step, "
            "or OMP_NUM_THREADS=%d before the start, may help",
            threads, free, free, free,
        )  # fmt: skip
