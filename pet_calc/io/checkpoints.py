"""From a published checkpoint file to a model folder of this package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch

from pet_calc.errors import CheckpointError, IntegrityError, PotentialNotFoundError
from pet_calc.io.weights import (
    empty_model,
    exact_dtype,
    read_config,
    require_digest,
    require_matching,
    save_model,
    sha256,
    write_atomically,
)
from pet_calc.models.pet import PET
from pet_calc.models.pet.checkpoints import ImportedPET, import_checkpoint
from pet_calc.models.pet.uncertainty import LLPR

#: Beside the weights of a model that knows its uncertainty.
UNCERTAINTY = "uncertainty.safetensors"


def read_published(path: Path | str) -> ImportedPET:
    """The model in a published checkpoint, of which nothing is executed.

    Raises
    ------
    PotentialNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged, hostile or of another architecture; see `import_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise PotentialNotFoundError(f"a checkpoint is a file, but there is none at {path}")
    try:
        return import_checkpoint(path.read_bytes())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_published(path: Path | str, dtype: torch.dtype = torch.float32) -> PET:
    """A published checkpoint as a model, frozen; errors as from `read_published`."""
    return model_of(read_published(path), Path(path), dtype)


def model_of(imported: ImportedPET, path: Path, dtype: torch.dtype) -> PET:
    """The model of an import; `CheckpointError` if its tensors do not fit its options."""
    model = empty_model(imported.config, dtype)
    require_matching(path, model, imported.state)
    model.load_state_dict(imported.state)
    return model.requires_grad_(False).eval()


def convert_checkpoint(
    path: Path | str, folder: Path | str, *, origin: dict[str, object] | None = None
) -> ImportedPET:
    """Write a published checkpoint as a model folder (``config.json``, ``weights.safetensors``).

    Parameters
    ----------
    path : path
        The checkpoint.
    folder : path
        Made if absent; a model in it is replaced. Its ``config.json`` records name, SHA-256 and
        format of the file that it was made from.
    origin : dict, optional
        More about where the file is from, recorded as well.

    Raises
    ------
    PotentialNotFoundError, CheckpointError
        See `read_published`.
    OutputError
        If the folder cannot be written.
    """
    path = Path(path)
    imported = read_published(path)
    source: dict[str, object] = {
        "file": path.name,
        "sha256": sha256(path),
        "format": imported.version,
        **(origin or {}),
    }
    details: dict[str, object] = {"imported_from": source}
    if imported.wrapper:
        content = safetensors.torch.save(llpr_of(imported).to_tensors())
        write_atomically(Path(folder) / UNCERTAINTY, content)
        details["uncertainty_sha256"] = hashlib.sha256(content).hexdigest()
    # float64, so that what is stored is the file's own numbers
    model = model_of(imported, path, torch.float64)
    save_model(folder, model, details, dtype=exact_dtype(model))
    return imported


def llpr_of(imported: ImportedPET) -> LLPR:
    """The uncertainty model of a checkpoint that wraps one, for the energy head in use.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    config = imported.config
    head = config.energy_head or config.energy_heads[0]
    suffix = head.replace("energy", "energy_uncertainty", 1)
    wrapper = imported.wrapper
    if f"cholesky_{suffix}" not in wrapper:
        raise CheckpointError(
            f"the checkpoint must hold cholesky_{suffix} to give uncertainties, but holds "
            f"{sorted(wrapper)[:5]}"
        )
    return LLPR(
        cholesky=wrapper[f"cholesky_{suffix}"].double(),
        multiplier=wrapper[f"multiplier_{suffix}"].double().reshape(()),
        ensemble=wrapper.get(f"llpr_ensemble_layers.{head}.weight", torch.zeros(0, 0)).double(),
    )


def load_uncertainty(folder: Path | str) -> LLPR:
    """The uncertainty model of a model folder.

    Raises
    ------
    PotentialNotFoundError
        If the folder has none.
    IntegrityError
        If the file does not have its recorded SHA-256.
    """
    path = Path(folder) / UNCERTAINTY
    if not path.is_file():
        raise PotentialNotFoundError(f"this model has no uncertainties: there is no {path}")
    content = path.read_bytes()
    recorded = read_config(folder).get("training", {}).get("uncertainty_sha256")
    if not isinstance(recorded, str):
        raise IntegrityError(f"the model's configuration must record the digest of {path}")
    require_digest(path, hashlib.sha256(content).hexdigest(), recorded)
    return LLPR.from_tensors(safetensors.torch.load(content))
