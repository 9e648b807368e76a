"""Generators on disk: a folder with ``config.json`` and ``weights.safetensors``.

Like a potential's folder (`pet_calc.io.models.weights`), but of another kind: no energy is in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError

from pet_calc.crystals.diffusion.occupancy import OccupancyConfig, OccupancyModel
from pet_calc.crystals.diffusion.sparse import SparseConfig, UniMatSparse
from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.weights import CONFIG, WEIGHTS, require_digest, write_atomically

FORMAT: Final = "pet_calc-generator-1"
ARCHITECTURE: Final = "unimat-sparse"


#: Before the names of the occupancy model's weights, which stand beside those of the denoiser.
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
    tensors = {n: t.detach().to("cpu", torch.float32).contiguous() for n, t in state.items()}
    weights = safetensors.torch.save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    values = {
        "format": FORMAT,
        "architecture": ARCHITECTURE,
        "config": model.config.to_dict(),
        **({} if occupancy is None else {"occupancy": occupancy.config.to_dict()}),
        "weights_sha256": digest,
        "training": training,
    }
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, (json.dumps(values, indent=1) + "\n").encode())
    return digest


def load_generator(
    folder: Path,
) -> tuple[UniMatSparse, OccupancyModel | None, dict[str, Any]]:
    """The frozen models of a folder and the content of its ``config.json``.

    The second one, which chooses compositions, is None where the generator needs them given.

    Raises
    ------
    PotentialNotFoundError
        If a file is missing.
    IntegrityError
        If the weights do not have the recorded SHA-256.
    CheckpointError
        If the files are damaged or of another kind.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise PotentialNotFoundError(
                f"a generator is a folder with {CONFIG} and {WEIGHTS}, but there is no "
                f"{folder / name}"
            )
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found = (values["format"], values["architecture"])
        if found != (FORMAT, ARCHITECTURE):
            raise CheckpointError(
                f"{folder} must hold a generator ({FORMAT}, {ARCHITECTURE}), got {found}"
            )
        config = SparseConfig(**values["config"])
        chooses = OccupancyConfig(**values["occupancy"]) if "occupancy" in values else None
        recorded = values["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a generator: {error}"
        ) from error
    content = (folder / WEIGHTS).read_bytes()
    require_digest(folder / WEIGHTS, hashlib.sha256(content).hexdigest(), recorded)
    with torch.random.fork_rng(devices=[]):
        model = UniMatSparse(config)
        occupancy = None if chooses is None else OccupancyModel(chooses)
    try:
        tensors = safetensors.torch.load(content)
        own = {n: tensors.pop(n) for n in list(tensors) if n.startswith(OCCUPANCY)}
        model.load_state_dict(tensors)
        if occupancy is not None:
            occupancy.load_state_dict({n.removeprefix(OCCUPANCY): t for n, t in own.items()})
            occupancy.requires_grad_(False).eval()
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit its configuration: {error}"
        ) from error
    return model.requires_grad_(False).eval(), occupancy, values
