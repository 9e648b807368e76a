"""From a published checkpoint file to a model folder of this package."""

from __future__ import annotations

from pathlib import Path

import torch

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.files import sha256
from pet_calc.io.models.folder import require_matching
from pet_calc.io.models.uncertainty import write_uncertainty
from pet_calc.io.models.weights import empty_model, exact_dtype, save_model
from pet_calc.models.pet import PET
from pet_calc.models.pet.published.checkpoints import (
    ImportedPET,
    import_checkpoint,
    uncertainty_name,
)
from pet_calc.models.pet.uncertainty import LLPR


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
        details |= write_uncertainty(folder, uncertainties_of(imported))
    # float64, so that what is stored is the file's own numbers
    model = model_of(imported, path, torch.float64)
    save_model(folder, model, details, dtype=exact_dtype(model))
    return imported


def uncertainties_of(imported: ImportedPET) -> dict[str, LLPR]:
    """The uncertainty models of a checkpoint by energy head; those that it has."""
    wrapper = imported.wrapper
    found = {}
    for head in imported.config.energy_heads:
        name = uncertainty_name(head)
        if f"cholesky_{name}" in wrapper:
            cholesky = wrapper[f"cholesky_{name}"].double()
            ensemble = wrapper.get(f"llpr_ensemble_layers.{head}.weight")
            if ensemble is None:
                ensemble = cholesky.new_zeros(0, len(cholesky))
            multiplier = wrapper[f"multiplier_{name}"].double().reshape(())
            found[head] = LLPR(cholesky, multiplier, ensemble.double())
    return found
