"""The architectures that can be trained, stored and loaded, by name."""

from __future__ import annotations

from typing import Any, Final

import torch

from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.published.original import OriginalPET, OriginalPETConfig

#: A model with weights of its own, that a model folder can hold.
Model = PET | OriginalPET | Crystalformer
ModelConfig = PETConfig | OriginalPETConfig | CrystalformerConfig

#: Those that this package trains.
TrainableModel = PET | Crystalformer
TrainableConfig = PETConfig | CrystalformerConfig
TRAINABLE: Final[dict[str, type[PETConfig] | type[CrystalformerConfig]]] = {
    "pet": PETConfig,
    "crystalformer": CrystalformerConfig,
}

#: Architectures by the name that ``config.json`` gives them.
ARCHITECTURES: Final[
    dict[str, type[PETConfig] | type[OriginalPETConfig] | type[CrystalformerConfig]]
] = {**TRAINABLE, "pet-original": OriginalPETConfig}


def architecture_of(config: ModelConfig) -> str:
    """Name of a model's architecture in ``config.json``."""
    return next(name for name, kind in ARCHITECTURES.items() if isinstance(config, kind))


def trainable_config(architecture: str, values: dict[str, Any]) -> TrainableConfig:
    """Configuration of an architecture that can be trained, from plain values.

    Raises
    ------
    ValueError
        For an unknown architecture or option.
    """
    if architecture not in TRAINABLE:
        raise ValueError(
            f"`architecture` must be one of {', '.join(TRAINABLE)}, got {architecture!r}"
        )
    config = TRAINABLE[architecture].from_dict(values)
    if isinstance(config, CrystalformerConfig) and config.readout != "atoms":
        raise ValueError("`readout` must be 'atoms': only potentials are trained")
    return config


def new_model(config: TrainableConfig, dtype: torch.dtype) -> TrainableModel:
    """A model with random weights."""
    if isinstance(config, PETConfig):
        return PET(config, dtype=dtype)
    return Crystalformer(config, dtype=dtype)
