"""Uncertainty models beside the weights of a potential: ``uncertainty.safetensors``.

The file holds, for each energy head that has one, the tensors of an
`pet_calc.models.pet.uncertainty.LLPR` under ``<head>.cholesky``, ``<head>.multiplier`` and
``<head>.ensemble``, in float64. The potential's ``config.json`` records its SHA-256 under
``training`` / ``uncertainty_sha256``; a file that is not recorded there counts as absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors.torch

from pet_calc.errors import PotentialNotFoundError
from pet_calc.io.models.files import require_digest, write_atomically
from pet_calc.io.models.folder import tensors_of
from pet_calc.io.models.weights import read_config
from pet_calc.models.pet.uncertainty import LLPR

UNCERTAINTY: Final = "uncertainty.safetensors"
RECORD: Final = "uncertainty_sha256"


def write_uncertainty(folder: Path | str, models: Mapping[str, LLPR]) -> dict[str, str]:
    """Write the file, and return the record for ``config.json`` (see `save_model`).

    Parameters
    ----------
    folder : path
        Made if absent.
    models : mapping of str to LLPR
        By energy head.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    tensors = {
        f"{head}.{name}": tensor.cpu()
        for head, llpr in models.items()
        for name, tensor in llpr.to_tensors().items()
    }
    content = safetensors.torch.save(tensors)
    write_atomically(Path(folder) / UNCERTAINTY, content)
    return {RECORD: hashlib.sha256(content).hexdigest()}


def find_uncertainty(folder: Path | str, head: str = "energy") -> LLPR | None:
    """The uncertainty model of one energy head of a potential; None where there is none.

    Raises
    ------
    PotentialNotFoundError
        If it is recorded, but its file is missing.
    IntegrityError
        If the file does not have its recorded SHA-256.
    CheckpointError
        If the file is damaged.
    """
    path = Path(folder) / UNCERTAINTY
    recorded = read_config(folder).get("training", {}).get(RECORD)
    if recorded is None:
        return None
    if not path.is_file():
        raise PotentialNotFoundError(
            f"the configuration in {folder} records uncertainties, but there is no {path}"
        )
    content = path.read_bytes()
    require_digest(path, content, recorded)
    tensors = tensors_of(path, content)
    own = {
        name.removeprefix(f"{head}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{head}.")
    }
    return LLPR.from_tensors(own) if own else None
