"""Local frames: their weights, vectors seen in them, averages over them."""

from __future__ import annotations

from typing import Any, Final

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
_TRITON: Final = "pet_calc.kernels.ecse_frames.triton"
_DTYPES: Final = (torch.float32, torch.float64)


def too_many_pairs(weight: Tensor, group: Tensor, *_: Any) -> str | None:
    """Why the Triton kernels cannot prune such groups; None if they can."""
    most = int(torch.bincount(group).max()) if len(group) else 0
    return beyond(MOST_PAIRS, most, "pairs in a group")


def too_wide(base: Tensor, *_: Tensor) -> str | None:
    """Why the Triton kernels cannot take such tokens; None if they can."""
    return beyond(WIDEST, base.shape[1], "columns of a token")


pair_weights = operation(_NAME, f"{_TRITON}_weights:pair_weights", dtypes=_DTYPES)(
    reference.pair_weights
)
pruned_weights = operation(_NAME, f"{_TRITON}_pruning:pruned_weights", too_many_pairs, _DTYPES)(
    reference.pruned_weights
)
framed_embedding = operation(_NAME, f"{_TRITON}_views:framed_embedding", too_wide, _DTYPES)(
    reference.framed_embedding
)
view_average = operation(_NAME, f"{_TRITON}_views:view_average", dtypes=_DTYPES)(
    reference.view_average
)


def fused_views(vectors: Tensor, width: int) -> bool:
    """Whether `framed_embedding` runs as one kernel for atoms with at most `width` slots."""
    return framed_embedding.applies(vectors, lambda: beyond(MOST_SLOTS, width, "slots of an atom"))
