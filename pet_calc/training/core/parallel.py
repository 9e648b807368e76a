"""Training on several processes: each computes a part of a step, and the gradients are added.

``torchrun`` starts the processes. All of them hold the same weights and take the same steps; the
first one alone writes files.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
# a process may wait for another one that writes the results; torchrun ends it if the other dies
_PATIENCE: Final = timedelta(days=1)


@dataclass(frozen=True)
class Team:
    """The processes of a run.

    Attributes
    ----------
    rank : int
        Number of this one.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Those that this process takes care of: every `size`-th."""
        return items[self.rank :: self.size]

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let every process have the sum of the gradients; one that none of them has stays None."""
        if self.size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        used = self.total(torch.tensor([float(p.grad is not None) for p in trained]))
        shared = [p for p, n in zip(trained, used.tolist(), strict=True) if n > 0]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in shared]
        )
        parts = self.total(flat).split([p.numel() for p in shared])
        for p, part in zip(shared, parts, strict=True):
            p.grad = part.view_as(p).clone()


#: One process alone.
ALONE: Final = Team()


def team_of_processes() -> Team:
    """The processes that ``torchrun`` started this one with, or this one alone.

    They talk through gloo, in one process group until the process ends: a second one would have
    to be agreed on while the first one is being left. A group of the caller's is used as it is.
    """
    if not distributed.is_available():
        return ALONE
    if not distributed.is_initialized():
        if not distributed.is_torchelastic_launched():
            return ALONE
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return Team(distributed.get_rank(), distributed.get_world_size())
