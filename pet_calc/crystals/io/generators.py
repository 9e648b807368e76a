"""Generators on disk: a model folder (`pet_calc.io.models.folder`) of the kind "generator".

Where a generator chooses compositions, its ``config.json`` has ``occupancy``, the options of the
model that does so. The weights of that model stand beside those of the denoiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from pet_calc.crystals.diffusion.occupancy import OccupancyConfig, OccupancyModel
from pet_calc.crystals.diffusion.sparse import SparseConfig, UniMatSparse
from pet_calc.io.models.folder import ModelFolder

ARCHITECTURE: Final = "unimat-sparse"


#: Before the names of the occupancy model's weights.
OCCUPANCY: Final = "occupancy."


def save_generator(
    folder: Path,
    model: UniMatSparse,
    training: dict[str, Any],
    occupancy: OccupancyModel | None = None,
) -> str:
    """Write a generator; returns the SHA-256 of its weights."""
    state = dict(model.state_dict())
    if occupancy is not None:
        state |= {OCCUPANCY + n: t for n, t in occupancy.state_dict().items()}
    values = {
        "architecture": ARCHITECTURE,
        "config": model.config.to_dict(),
        **({} if occupancy is None else {"occupancy": occupancy.config.to_dict()}),
        "training": training,
    }
    return ModelFolder(folder, "generator").write(values, {n: t.float() for n, t in state.items()})


def load_generator(
    folder: Path, expected_sha256: Mapping[str, str] | None = None
) -> tuple[UniMatSparse, OccupancyModel | None, dict[str, Any]]:
    """The frozen models of a folder and the content of its ``config.json``.

    The second one, which chooses compositions, is None where the generator needs them given.

    Raises
    ------
    PotentialNotFoundError
        If a file is missing.
    IntegrityError
        If a file does not have its recorded SHA-256.
    CheckpointError
        If the files are damaged or of another kind.
    """
    source = ModelFolder(folder, "generator")
    values, tensors = source.read(expected_sha256)
    own = {n: tensors.pop(n) for n in list(tensors) if n.startswith(OCCUPANCY)}
    config = source.described(lambda v: SparseConfig(**v), values.get("config"))
    occupancy = None
    with torch.random.fork_rng(devices=[]):
        model = UniMatSparse(config)
        if "occupancy" in values:
            chooses = source.described(lambda v: OccupancyConfig(**v), values["occupancy"])
            occupancy = OccupancyModel(chooses)
    if occupancy is not None:
        source.fill(occupancy, {n.removeprefix(OCCUPANCY): t for n, t in own.items()})
    return source.fill(model, tensors), occupancy, values
