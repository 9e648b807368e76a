"""Local frames: their weights, vectors seen in them, averages over them."""

from pet_calc.kernels.ecse_frames.constants import FrameConfig
from pet_calc.kernels.ecse_frames.dispatch import (
    framed_embedding,
    fused_views,
    pair_weights,
    pruned_weights,
    view_average,
)
from pet_calc.kernels.ecse_frames.reference import (
    AXIAL,
    FRAME,
    ISOTROPIC,
    directions,
    embedded,
    oriented,
)

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
