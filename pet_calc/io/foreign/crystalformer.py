"""From a checkpoint of the public Crystalformer code to a model folder of this package."""

from __future__ import annotations

from pathlib import Path

import torch

from pet_calc.errors import CheckpointError
from pet_calc.io.models.files import sha256
from pet_calc.io.models.folder import require_matching
from pet_calc.io.models.weights import empty_model, exact_dtype, save_model
from pet_calc.models.crystalformer.checkpoints import from_dictionary, is_crystalformer
from pet_calc.models.unpickling import read_checkpoint


def holds_crystalformer(path: Path) -> bool:
    """Whether a checkpoint file is one of the public Crystalformer code."""
    try:
        return is_crystalformer(read_checkpoint(path.read_bytes()))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def convert_crystalformer(path: Path, folder: Path) -> list[str]:
    """Write a public Crystalformer as a model folder; nothing in its file is executed.

    Parameters
    ----------
    path : Path
        Checkpoint of the public code.
    folder : Path
        Made if absent; a model in it is replaced. Its ``config.json`` records name and SHA-256 of
        the file, and which of its weights were taken.

    Returns
    -------
    list of str
        What was found, for people.

    Raises
    ------
    CheckpointError
        If the file is damaged, hostile, or of a variant that is not supported.
    OutputError
        If the folder cannot be written.
    """
    try:
        imported = from_dictionary(read_checkpoint(path.read_bytes()))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    model = empty_model(imported.config, torch.float64)
    require_matching(path, model, imported.state)
    model.load_state_dict(imported.state)
    weights = "averaged over the last epochs" if imported.averaged else "of the last step"
    source = {"file": path.name, "sha256": sha256(path), "weights": weights}
    save_model(folder, model, {"imported_from": source}, dtype=exact_dtype(model))
    config = imported.config
    return [
        f"Crystalformer for {', '.join(config.targets)}, {config.num_layers} blocks, "
        f"{len(config.elements)} elements; weights {weights}",
        "it predicts properties of whole crystals and is no potential",
    ]
