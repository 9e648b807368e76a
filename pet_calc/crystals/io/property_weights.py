"""Property models on disk: ``config.json`` and ``weights.safetensors``, checked by SHA-256.

The form is that of potentials (`pet_calc.io.models.weights`), with ``"kind": "property"``, so that
neither is ever read as the other.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from pet_calc.crystals.models import PropertyConfig, PropertyEnsemble
from pet_calc.errors import CheckpointError
from pet_calc.io.models.weights import CONFIG, WEIGHTS, read_file, require_digest, write_atomically

FORMAT = 2


def save_property_model(folder: Path, model: PropertyEnsemble, training: dict[str, Any]) -> str:
    """Write a property model into a folder; returns the SHA-256 of the weights."""
    tensors = {n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    values = {
        "format": FORMAT,
        "kind": "property",
        "architecture": model.config.backbone,
        "config": model.config.to_dict(),
        "members": len(model.members),
        "weights_sha256": digest,
        "training": training,
    }
    write_atomically(folder / WEIGHTS, weights)
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIG, text.encode())
    return digest


def is_property_model(folder: Path) -> bool:
    """Whether a folder holds a property model."""
    path = folder / CONFIG
    try:
        return path.is_file() and json.loads(path.read_bytes()).get("kind") == "property"
    except (ValueError, AttributeError):
        return False


def load_property_model(
    folder: Path, expected_sha256: dict[str, str] | None = None
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
    contents = {name: read_file(folder / name) for name in (CONFIG, WEIGHTS)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    for name, expected in (expected_sha256 or {}).items():
        if name in digests:
            require_digest(folder / name, digests[name], expected)
    try:
        values = json.loads(contents[CONFIG])
        if values["kind"] != "property" or values["format"] != FORMAT:
            raise CheckpointError(f"{folder} holds no property model of format {FORMAT}")
        require_digest(folder / WEIGHTS, digests[WEIGHTS], values["weights_sha256"])
        config, members = PropertyConfig.from_dict(values["config"]), int(values["members"])
        tensors = safetensors.torch.load(contents[WEIGHTS])
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} does not describe a property model ({error!r}); a newer pet_calc may read it"
        ) from error
    with torch.random.fork_rng(devices=[]):
        model = PropertyEnsemble(config, members)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {folder} do not fit its config: {error}") from error
    return model.requires_grad_(False).eval()
