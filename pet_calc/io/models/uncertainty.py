"""Uncertainty models beside the weights of a potential: ``uncertainty.safetensors``.

The file holds, for each energy head that has one, the tensors of an
`pet_calc.models.pet.uncertainty.LLPR` under ``<head>.cholesky``, ``<head>.multiplier`` and
``<head>.ensemble``, in float64. The potential's ``config.json`` records its SHA-256 under
``training`` / ``uncertainty_sha256``; a file that is not recorded there counts as absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from safetensors import SafetensorError

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.weights import CONFIG, read_config, require_digest, write_atomically
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


def add_uncertainty(folder: Path | str, models: Mapping[str, LLPR]) -> None:
    """Give a saved potential an uncertainty model, or another one.

    Raises
    ------
    PotentialNotFoundError, CheckpointError
        If the folder holds no potential.
    OutputError
        If it cannot be written.
    """
    values = read_config(folder)
    record = write_uncertainty(folder, models)
    values["training"] = values.get("training", {}) | record
    content = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(Path(folder) / CONFIG, content.encode())


def load_uncertainty(folder: Path | str, head: str = "energy") -> LLPR:
    """The uncertainty model of one energy head of a potential.

    Raises
    ------
    PotentialNotFoundError
        If the potential has none for that head.
    IntegrityError
        If the file does not have its recorded SHA-256.
    CheckpointError
        If the file is damaged.
    """
    found = find_uncertainty(folder, head)
    if found is None:
        raise PotentialNotFoundError(
            f"the potential in {folder} has no uncertainties of {head!r}; `pet-calc train` fits "
            f"them if its configuration has a table [uncertainty]"
        )
    return found


def find_uncertainty(folder: Path | str, head: str) -> LLPR | None:
    """As `load_uncertainty`, but None where there is none."""
    path = Path(folder) / UNCERTAINTY
    recorded = recorded_digest(read_config(folder))
    if recorded is None:
        return None
    if not path.is_file():
        raise PotentialNotFoundError(
            f"the configuration in {folder} records uncertainties, but there is no {path}"
        )
    content = path.read_bytes()
    require_digest(path, hashlib.sha256(content).hexdigest(), recorded)
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    own = {
        name.removeprefix(f"{head}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{head}.")
    }
    return LLPR.from_tensors(own) if own else None


def recorded_digest(config: Mapping[str, Any]) -> str | None:
    """SHA-256 of the uncertainty file as a ``config.json`` records it; None without one."""
    recorded = config.get("training", {}).get(RECORD)
    return recorded if isinstance(recorded, str) else None
