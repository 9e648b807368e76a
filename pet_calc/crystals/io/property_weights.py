"""Property models on disk: a model folder (`pet_calc.io.models.folder`) of the kind "property".

Its ``config.json`` has ``members`` as well, the number of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pet_calc.crystals.models import PropertyConfig, PropertyEnsemble
from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.folder import ModelFolder


def save_property_model(folder: Path, model: PropertyEnsemble, training: dict[str, Any]) -> str:
    """Write a property model into a folder; returns the SHA-256 of the weights."""
    values = {
        "architecture": model.config.backbone,
        "config": model.config.to_dict(),
        "members": len(model.members),
        "training": training,
    }
    return ModelFolder(folder, "property").write(values, model.state_dict())


def is_property_model(folder: Path) -> bool:
    """Whether a folder holds a property model."""
    try:
        ModelFolder(folder, "property").config()
    except (PotentialNotFoundError, CheckpointError):
        return False
    return True


def load_property_model(
    folder: Path, expected_sha256: Mapping[str, str] | None = None
) -> PropertyEnsemble:
    """The model that `save_property_model` wrote, frozen and in evaluation mode.

    Raises
    ------
    PotentialNotFoundError
        If a file is missing.
    IntegrityError
        If a file does not have its recorded SHA-256.
    CheckpointError
        If the files are damaged or no property model.
    """
    source = ModelFolder(folder, "property")
    values, tensors = source.read(expected_sha256)
    config = source.described(PropertyConfig.from_dict, values.get("config"))
    members = source.described(lambda v: int(v["members"]), values)
    with torch.random.fork_rng(devices=[]):
        model = PropertyEnsemble(config, members)
    return source.fill(model, tensors)
