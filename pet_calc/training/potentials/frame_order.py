"""Which frames a training step sees: a function of the seed and the step alone.

A resumed run therefore sees the same data as one that was not interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# beside the seed, so that no two draws of a run are the same
_NEW, _REPLAY = 1, 4


@dataclass(frozen=True)
class Order:
    """Frames of each epoch, in random order.

    Attributes
    ----------
    frames : tuple of int
        Indices that every epoch sees; some may occur several times.
    replay : tuple of int
        Indices of old data, in a random order of which every epoch sees the next part.
    replayed : int
        Length of that part.
    """

    frames: tuple[int, ...]
    replay: tuple[int, ...] = ()
    replayed: int = 0

    @property
    def length(self) -> int:
        """Frames in an epoch."""
        return len(self.frames) + self.replayed

    def epoch(self, number: int, seed: int) -> list[int]:
        """Frames of an epoch, shuffled."""
        begin = number * self.replayed
        old = permutations(begin, begin + self.replayed, len(self.replay), (seed, _REPLAY))
        all_frames = [*self.frames, *(self.replay[k] for k in old)]
        order = np.random.default_rng((seed, _NEW, number)).permutation(len(all_frames))
        return [all_frames[k] for k in order]

    def step(self, step: int, size: int, seed: int) -> list[int]:
        """The `size` frames of a step; epochs follow one another without a gap."""
        begin, end = step * size, (step + 1) * size
        first = begin // self.length
        epochs = range(first, (end - 1) // self.length + 1)
        stream = [k for e in epochs for k in self.epoch(e, seed)]
        return stream[begin - first * self.length : end - first * self.length]


def permutations(begin: int, end: int, n: int, seed: tuple[int, int]) -> list[int]:
    """Part from `begin` to `end` of an endless row of random permutations of 0 ... n - 1."""
    if begin == end:
        return []
    first = begin // n
    cycles = range(first, (end - 1) // n + 1)
    orders = [np.random.default_rng((*seed, c)).permutation(n) for c in cycles]
    return [int(k) for k in np.concatenate(orders)[begin - first * n : end - first * n]]


def replayed_frames(new: int, fraction: float) -> int:
    """Old frames beside `new` ones in an epoch, so that they are a `fraction` of all."""
    return max(1, round(new * fraction / (1.0 - fraction)))
