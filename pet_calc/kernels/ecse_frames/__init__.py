"""Local frames: their weights, vectors seen in them, averages over them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pet_calc.kernels.ecse_frames import reference
from pet_calc.kernels.ecse_frames.constants import FrameConfig
from pet_calc.kernels.ecse_frames.reference import (
    AXIAL,
    FRAME,
    ISOTROPIC,
    directions,
    embedded,
    oriented,
)
from pet_calc.kernels.operation import beyond, operation

__all__ = [
    "AXIAL",
    "FRAME",
    "ISOTROPIC",
    "FrameConfig",
    "directions",
    "embedded",
    "framed_embedding",
    "fused_views",
    "oriented",
    "pair_weights",
    "pruned_weights",
    "view_average",
]

#: Slots of an atom up to which the fused kernels take it.
MOST_SLOTS: Final = 256
#: Pairs with a weight in one group that is pruned in one program.
MOST_PAIRS: Final = 2048
#: Width of the tokens.
WIDEST: Final = 512

_NAME: Final = "local frames"
_WEIGHTS: Final = "pet_calc.kernels.ecse_frames.triton_weights"
_PRUNING: Final = "pet_calc.kernels.ecse_frames.triton_pruning"
_VIEWS: Final = "pet_calc.kernels.ecse_frames.triton_views"
_DTYPES: Final = (torch.float32, torch.float64)


@operation(_NAME, f"{_WEIGHTS}:pair_weights", dtypes=_DTYPES)
def pair_weights(
    r: Tensor, unit: Tensor, atom: Tensor, n_atoms: int, outer_cutoff: float, config: FrameConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of pairs of neighbors and inner cutoffs; see the reference."""
    return reference.pair_weights(r, unit, atom, n_atoms, outer_cutoff, config)


def too_many_pairs(weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig) -> str | None:
    """Why the Triton kernels cannot prune such groups; None if they can."""
    most = int(torch.bincount(group).max()) if len(group) else 0
    return beyond(MOST_PAIRS, most, "pairs in a group")


@operation(_NAME, f"{_PRUNING}:pruned_weights", too_many_pairs, _DTYPES)
def pruned_weights(
    weight: Tensor, group: Tensor, n_groups: int, config: FrameConfig
) -> tuple[Tensor, Tensor]:
    """Weights without the small ones; see the reference."""
    return reference.pruned_weights(weight, group, n_groups, config)


def too_wide(
    base: Tensor, projection: Tensor, vectors: Tensor, slot_edge: Tensor, row: Tensor,
    matrix: Tensor, sign: Tensor, kind: Tensor,
) -> str | None:  # fmt: skip
    """Why the Triton kernels cannot take such tokens; None if they can."""
    return beyond(WIDEST, base.shape[1], "columns of a token")


@operation(_NAME, f"{_VIEWS}:framed_embedding", too_wide, _DTYPES)
def framed_embedding(
    base: Tensor, projection: Tensor, vectors: Tensor, slot_edge: Tensor, row: Tensor,
    matrix: Tensor, sign: Tensor, kind: Tensor,
) -> Tensor:  # fmt: skip
    """Rotation into the first linear map; see the reference."""
    return reference.framed_embedding(base, projection, vectors, slot_edge, row, matrix, sign, kind)


def fused_views(vectors: Tensor, width: int) -> bool:
    """Whether `framed_embedding` runs as one kernel for atoms with at most `width` slots."""
    return framed_embedding.applies(vectors, lambda: beyond(MOST_SLOTS, width, "slots of an atom"))


@operation(_NAME, f"{_VIEWS}:view_average", dtypes=_DTYPES)
def view_average(values: Tensor, row: Tensor, weight: Tensor, n_atoms: int) -> Tensor:
    """Weighted sums over the views of each atom; see the reference."""
    return reference.view_average(values, row, weight, n_atoms)
