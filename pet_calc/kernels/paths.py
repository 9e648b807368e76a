"""Accelerated paths: which of them "auto" may take, and which it took.

An accelerated path computes what a reference defines, in another way: in Triton kernels, or in
compiled code. Whoever evaluates a model may follow a `Paths`, which refuses some of them and notes
the others; without one, all may be taken. A backend that a caller names is not asked about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from importlib.util import find_spec
from typing import Any, Final, Literal

import torch
from torch import Tensor

Precision = Literal["highest", "high", "fast"]

CUTOFF_ATTENTION: Final = "cutoff attention in Triton"
LOCAL_FRAMES: Final = "local frames in Triton"
EDGE_EMBEDDING: Final = "edge embedding in Triton"
FUSED_LINEAR: Final = "linear maps in Triton"
LATTICE_ATTENTION: Final = "lattice attention in Triton"
COMPILED: Final = "transformers by torch.compile"


@dataclass(eq=False)
class Paths:
    """What an evaluation may take, and has taken.

    Attributes
    ----------
    allowed : frozenset of str or None
        None are all.
    refused : frozenset of str
        Of the allowed ones.
    taken : dict
        Precision of each path that was taken.
    """

    allowed: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    taken: dict[str, Precision] = field(default_factory=dict)

    def take(self, path: str, precision: Precision) -> bool:
        """Whether `path` may be taken; if so, it is noted."""
        if path in self.refused or (self.allowed is not None and path not in self.allowed):
            return False
        self.taken[path] = precision
        return True


_followed: ContextVar[Paths | None] = ContextVar("pet_calc_paths", default=None)


@contextmanager
def following(paths: Paths | None) -> Iterator[None]:
    """Evaluate by these paths."""
    token = _followed.set(paths)
    try:
        yield
    finally:
        _followed.reset(token)


def take(path: str, precision: Precision = "highest") -> bool:
    """Whether an accelerated path may be taken where there is a choice."""
    paths = _followed.get()
    return paths is None or paths.take(path, precision)


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that follows today's paths when it is called later, in any thread."""
    paths = _followed.get()
    if paths is None:
        return function

    @wraps(function)
    def later(*arguments: Any) -> Any:
        with following(paths):
            return function(*arguments)

    return later


def triton_wanted(device: torch.device) -> bool:
    """Whether ``PET_CALC_TRITON=1`` asks for kernels on such a device, or in the interpreter."""
    runs = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return runs and os.environ.get("PET_CALC_TRITON") == "1"


def triton_refusal(tensor: Tensor) -> str | None:
    """Why Triton kernels cannot run on a tensor at all; None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if tensor.device.type != "cuda" and not interpreted:
        return f"they run on CUDA devices, not on {tensor.device.type}"
    if tensor.dtype != torch.float32 and not (interpreted and tensor.dtype == torch.float64):
        return f"they take float32, not {tensor.dtype}"
    return None
