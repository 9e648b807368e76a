"""Potentials on disk: a model folder (`pet_calc.io.models.folder`) of the kind "potential".

Beside the entries of every kind, its ``config.json`` has ``dtype``, the type of the stored weights,
and ``domain``, what the potential was trained on (`pet_calc.io.models.domain`); converted models
have no domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, overload

import torch

from pet_calc.errors import CheckpointError
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.io.models.files import CONFIG
from pet_calc.io.models.folder import ModelFolder
from pet_calc.models.architectures import ARCHITECTURES, Model, ModelConfig, architecture_of
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.published.original import OriginalPET, OriginalPETConfig

#: Precisions of the computation, by the name that users give.
DTYPES: Final[dict[str, torch.dtype]] = {"float32": torch.float32, "float64": torch.float64}


def dtype_from_name(dtype: torch.dtype | str) -> torch.dtype:
    """The torch type of "float32" or "float64"; torch types pass if they are one of these.

    Raises
    ------
    ValueError
        For anything else.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ValueError(f"`dtype` must be 'float32' or 'float64', got {dtype!r}")
    return found


def save_model(
    folder: Path | str,
    model: Model,
    training: dict[str, Any] | None = None,
    domain: TrainingDomain | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a model into a folder; each file appears in one rename.

    What a model keeps in float64 for itself, such as reference energies, stays in float64.

    Parameters
    ----------
    folder : path
        Made if absent; files of an earlier model in it are replaced.
    model : PET, OriginalPET or Crystalformer
        The potential.
    training : dict, optional
        How the weights were made, kept in ``config.json``.
    domain : TrainingDomain, optional
        What they were made from, kept there too.
    dtype : torch.dtype
        Type of the stored weights, whatever the model computes in; see `exact_dtype`.

    Returns
    -------
    str
        SHA-256 of the weights file.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    # an empty model says which of its tensors are float64 in any case
    stored = {n: t.dtype for n, t in empty_model(model.config, dtype).state_dict().items()}
    values = {
        "architecture": architecture_of(model.config),
        "config": model.config.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "training": training or {},
        **({} if domain is None else {"domain": domain.to_dict()}),
    }
    return ModelFolder(Path(folder)).write(
        values, {name: tensor.to(stored[name]) for name, tensor in model.state_dict().items()}
    )


def exact_dtype(model: Model) -> torch.dtype:
    """The smallest type that holds the weights without rounding, float32 or float64."""
    kept = empty_model(model.config, torch.float32).state_dict()
    exact = all(
        torch.equal(tensor.float().double(), tensor.double())
        for name, tensor in model.state_dict().items()
        if kept[name].dtype == torch.float32
    )
    return torch.float32 if exact else torch.float64


def read_config(folder: Path | str) -> dict[str, Any]:
    """Content of a potential's ``config.json``, with format and architecture checked.

    Raises
    ------
    PotentialNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged, of another format or kind, or of another architecture.
    """
    values = ModelFolder(Path(folder)).config()
    require_architecture(Path(folder), values)
    return values


def require_architecture(folder: Path, values: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless a ``config.json`` names an architecture and its options."""
    if values.get("architecture") not in ARCHITECTURES:
        raise CheckpointError(
            f"{folder / CONFIG} must be of the architecture "
            f"{' or '.join(map(repr, ARCHITECTURES))}, got {values.get('architecture')!r}; a newer "
            f"pet_calc may read it"
        )
    if not isinstance(values.get("config"), dict):
        raise CheckpointError(f"{folder / CONFIG} must hold the model's options under 'config'")


def config_from(values: Mapping[str, Any]) -> ModelConfig:
    """The options in the content of a ``config.json``."""
    return ARCHITECTURES[values["architecture"]].from_dict(values["config"])


def read_domain(folder: Path | str) -> TrainingDomain | None:
    """What the model in a folder was trained on; None if that was not recorded.

    Raises
    ------
    CheckpointError
        If the record is malformed.
    """
    values = read_config(folder).get("domain")
    return None if values is None else TrainingDomain.from_dict(values)


def load_model(
    folder: Path | str,
    dtype: torch.dtype | str = torch.float32,
    *,
    expected_sha256: dict[str, str] | None = None,
) -> Model:
    """Read the model that `save_model` wrote, with its parameters frozen.

    Parameters
    ----------
    folder : path
        Folder with ``config.json`` and ``weights.safetensors``.
    dtype : torch.dtype or str
        Precision of the computation, float32 or float64. Reference energies and energy scale
        are float64 in both.
    expected_sha256 : dict, optional
        File name to digest, as an index of potentials records them. The digest of the weights
        that ``config.json`` records is checked in any case.

    Raises
    ------
    PotentialNotFoundError
        If a file is missing.
    IntegrityError
        If a file does not have its recorded SHA-256.
    CheckpointError
        If the files are damaged or the weights do not fit the configuration.
    """
    torch_dtype = dtype_from_name(dtype)
    source = ModelFolder(Path(folder))
    values, tensors = source.read(expected_sha256)
    require_architecture(source.path, values)
    config = source.described(config_from, values)
    return source.fill(empty_model(config, torch_dtype), tensors)


@overload
def empty_model(config: PETConfig, dtype: torch.dtype) -> PET: ...


@overload
def empty_model(config: OriginalPETConfig, dtype: torch.dtype) -> OriginalPET: ...


@overload
def empty_model(config: CrystalformerConfig, dtype: torch.dtype) -> Crystalformer: ...


def empty_model(config: ModelConfig, dtype: torch.dtype) -> Model:
    """A model whose weights are about to be replaced; leaves the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        if isinstance(config, PETConfig):
            return PET(config, dtype=dtype)
        if isinstance(config, CrystalformerConfig):
            return Crystalformer(config, dtype=dtype)
        return OriginalPET(config, dtype=dtype)


@overload
def copy_model(model: PET, dtype: torch.dtype) -> PET: ...


@overload
def copy_model(model: OriginalPET, dtype: torch.dtype) -> OriginalPET: ...


@overload
def copy_model(model: Crystalformer, dtype: torch.dtype) -> Crystalformer: ...


def copy_model(model: Model, dtype: torch.dtype) -> Model:
    """A frozen copy in another precision; what the model keeps in float64 is not rounded.

    ``model.to(dtype)`` would round the reference energies as well.
    """
    copy = empty_model(model.config, dtype)
    copy.load_state_dict(model.state_dict())
    return copy.requires_grad_(False).eval()
