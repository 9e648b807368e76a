"""The architectures that can be trained, stored and loaded, by name."""

from __future__ import annotations

from typing import Any, Final

import torch

from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.pet import PET, PETConfig

#: A model with weights of its own: an `EnergyModel` that can be trained and stored.
TrainableModel = PET | Crystalformer
ModelConfig = PETConfig | CrystalformerConfig

CONFIGS: Final[dict[str, type[PETConfig] | type[CrystalformerConfig]]] = {
    "pet": PETConfig,
    "crystalformer": CrystalformerConfig,
}


def architecture_of(config: ModelConfig) -> str:
    """Name of the architecture that a configuration describes."""
    return next(name for name, kind in CONFIGS.items() if type(config) is kind)


def config_from_dict(architecture: str, values: dict[str, Any]) -> ModelConfig:
    """Configuration of an architecture from plain values.

    Raises
    ------
    ValueError
        For an unknown architecture or option.
    """
    if architecture not in CONFIGS:
        raise ValueError(
            f"`architecture` must be one of {', '.join(CONFIGS)}, got {architecture!r}"
        )
    return CONFIGS[architecture].from_dict(values)


def new_model(config: ModelConfig, dtype: torch.dtype) -> TrainableModel:
    """A model with random weights."""
    if isinstance(config, PETConfig):
        return PET(config, dtype=dtype)
    return Crystalformer(config, dtype=dtype)
