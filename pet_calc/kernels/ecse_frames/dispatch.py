"""Choice of the implementation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from pet_calc.kernels import paths
from pet_calc.kernels.ecse_frames import reference
from pet_calc.kernels.ecse_frames.constants import FrameConfig

_log = logging.getLogger("pet_calc")

Backend = Literal["auto", "torch", "triton"]

#: Slots of an atom up to which the fused kernels take it.
MOST_SLOTS = 256
#: Pairs with a weight in one group that is pruned in one program.
MOST_PAIRS = 2048
#: Width of the tokens.
WIDEST = 512


def triton_refusal(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on a device; None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"they run on CUDA devices, not on {device.type}"
    return None


def chosen(
    backend: Backend, device: torch.device, refusal: Callable[[], str | None] | None = None
) -> bool:
    """Whether the Triton kernels run; `refusal` is asked only where they would.

    "auto" is torch; with ``PET_CALC_TRITON=1`` in the environment it is the kernels on CUDA devices
    where they can run (the reason why not goes to the logger ``pet_calc``, level DEBUG): they have
    been run in Triton's interpreter and compiled, but on no GPU yet.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'torch' or 'triton', got {backend!r}")
    if backend == "torch":
        return False
    if backend == "auto" and not paths.triton_wanted(device):
        return False
    reason = triton_refusal(device) or (refusal() if refusal else None)
    if reason is None:
        return backend == "triton" or paths.take(paths.LOCAL_FRAMES)
    if backend == "triton":
        raise ValueError(f"the Triton kernels cannot be used: {reason}")
    _log.debug("local frames without Triton kernels: %s", reason)
    return False


def beyond(limit: int, found: int, what: str) -> str | None:
    """Why kernels that take `limit` of something do not take `found` of it; None if they do."""
    return f"they take at most {limit} {what}, not {found}" if found > limit else None


def most_of(group: Tensor) -> int:
    """Size of the largest group, by the group of each member."""
    return int(torch.bincount(group).max()) if len(group) else 0


def pair_weights(
    r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer_cutoff: float, config: FrameConfig,
    *, backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Weights of pairs of neighbors and inner cutoffs; see the reference and `chosen`."""
    if chosen(backend, r.device):
        from pet_calc.kernels.ecse_frames import triton_weights

        return triton_weights.pair_weights(r, unit, atom, n_atoms, outer_cutoff, config)
    return reference.pair_weights(r, unit, atom, n_atoms, outer_cutoff, config)


def pruned_weights(
    weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """Weights without the small ones; see the reference and `chosen`."""
    if chosen(
        backend, weight.device, lambda: beyond(MOST_PAIRS, most_of(group), "pairs in a group")
    ):
        from pet_calc.kernels.ecse_frames import triton_weights

        return triton_weights.pruned_weights(weight, group, n_groups, config)
    return reference.pruned_weights(weight, group, n_groups, config)


def fused_views(vectors: Tensor, width: int, *, backend: Backend = "auto") -> bool:
    """Whether `framed_embedding` runs as one kernel for atoms with at most `width` slots."""
    return chosen(backend, vectors.device, lambda: beyond(MOST_SLOTS, width, "slots of an atom"))


def framed_embedding(
    base: Tensor, projection: Tensor, vectors: Tensor, slot_edge: Tensor, row: Tensor,
    matrix: Tensor, sign: Tensor, kind: Tensor, *, backend: Backend = "auto",
) -> Tensor:  # fmt: skip
    """Rotation into the first linear map; see the reference and `chosen`."""
    arguments = (base, projection, vectors, slot_edge, row, matrix, sign, kind)
    width = base.shape[1]
    if len(row) and chosen(
        backend, base.device, lambda: beyond(WIDEST, width, "columns of a token")
    ):
        from pet_calc.kernels.ecse_frames import triton_views

        return triton_views.framed_embedding(*arguments)
    return reference.framed_embedding(*arguments)


def view_average(
    values: Tensor, row: Tensor, weight: Tensor, n_atoms: int, *, backend: Backend = "auto"
) -> Tensor:
    """Weighted sums over the views of each atom; see the reference and `chosen`."""
    if len(row) and chosen(backend, values.device):
        from pet_calc.kernels.ecse_frames import triton_views

        return triton_views.view_average(values, row, weight, n_atoms)
    return reference.view_average(values, row, weight, n_atoms)
