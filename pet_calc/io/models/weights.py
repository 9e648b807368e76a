"""Models on disk: ``config.json`` and ``weights.safetensors`` in one folder, checked by SHA-256.

Nothing is unpickled. ``config.json`` records the digest of the weights file, so that a damaged or
exchanged file is noticed also in a folder that no index knows::

    {
     "format": 1,
     "architecture": "pet",
     "config": {"elements": [1, 8], "cutoff": 4.5, ...},
     "dtype": "float32",
     "weights_sha256": "...",
     "training": {},
     "domain": {"elements": ["H", "O"], ...}
    }

``domain`` is what the potential was trained on (`pet_calc.io.models.domain`); converted models
lack it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final, overload

import safetensors.torch
import torch
from safetensors import SafetensorError

from pet_calc.errors import CheckpointError, IntegrityError, OutputError, PotentialNotFoundError
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.models.architectures import ARCHITECTURES, Model, ModelConfig, architecture_of
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.published.original import OriginalPET, OriginalPETConfig

CONFIG: Final = "config.json"
WEIGHTS: Final = "weights.safetensors"
FORMAT: Final = 1

#: Precisions of the computation, by the name that users give.
DTYPES: Final[dict[str, torch.dtype]] = {"float32": torch.float32, "float64": torch.float64}


def sha256(path: Path) -> str:
    """SHA-256 of a file as a hexadecimal string."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise `IntegrityError` if the file's digest is not the recorded one."""
    require_digest(path, sha256(path), expected)


def require_digest(path: Path, found: str, expected: str) -> None:
    """Raise `IntegrityError` if the digest `found` of a file is not the `expected` one."""
    if found != expected.lower():
        raise IntegrityError(
            f"{path} must have the SHA-256 {expected}, but has {found}: it is damaged or was "
            f"exchanged; restore it from the source you trust"
        )


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
    folder = Path(folder)
    # an empty model knows which of its tensors are float64 in any case
    stored = {n: t.dtype for n, t in empty_model(model.config, dtype).state_dict().items()}
    tensors = {
        name: tensor.detach().to("cpu", stored[name]).contiguous()
        for name, tensor in model.state_dict().items()
    }
    weights = safetensors.torch.save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    values = {
        "format": FORMAT,
        "architecture": architecture_of(model.config),
        "config": model.config.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "weights_sha256": digest,
        "training": training or {},
    }
    if domain is not None:
        values["domain"] = domain.to_dict()
    config = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, config.encode())
    return digest


def exact_dtype(model: Model) -> torch.dtype:
    """The smallest type that holds the weights without rounding, float32 or float64."""
    kept = empty_model(model.config, torch.float32).state_dict()
    exact = all(
        torch.equal(tensor.float().double(), tensor.double())
        for name, tensor in model.state_dict().items()
        if kept[name].dtype == torch.float32
    )
    return torch.float32 if exact else torch.float64


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that readers find the old or the new one.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
        raise OutputError(
            f"{path} cannot be written ({error}); choose a folder that you may write"
        ) from error


def read_config(folder: Path | str) -> dict[str, Any]:
    """Content of a model folder's ``config.json``, with format and architecture checked.

    Raises
    ------
    PotentialNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged, of another format, or of another architecture.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise PotentialNotFoundError(
            f"a potential is a folder with {CONFIG} and {WEIGHTS}, but there is no {path}"
        )
    return parse_config(path, path.read_bytes())


def parse_config(path: Path, content: bytes) -> dict[str, Any]:
    """Checked content of a ``config.json`` that was read from `path`."""
    try:
        values = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(values).__name__}")
    found = (values.get("format"), values.get("architecture"))
    if found[0] != FORMAT or found[1] not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} must be of format {FORMAT} and architecture "
            f"{' or '.join(map(repr, ARCHITECTURES))}, got {found}; a newer pet_calc may read it"
        )
    if not isinstance(values.get("config"), dict):
        raise CheckpointError(f"{path} must hold the model's options under 'config'")
    return values


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
    folder = Path(folder)
    expected = expected_sha256 or {}
    torch_dtype = dtype_from_name(dtype)
    # read once: what is checked is what is used
    contents = {name: read_file(folder / name) for name in (CONFIG, WEIGHTS)}
    for name, content in contents.items():
        if name in expected:
            digest = hashlib.sha256(content).hexdigest()
            require_digest(folder / name, digest, expected[name])
    values = parse_config(folder / CONFIG, contents[CONFIG])
    weights = folder / WEIGHTS
    recorded = values.get("weights_sha256")
    if not isinstance(recorded, str):
        raise CheckpointError(
            f"{folder / CONFIG} must record the digest of {WEIGHTS} under 'weights_sha256'"
        )
    require_digest(weights, hashlib.sha256(contents[WEIGHTS]).hexdigest(), recorded)
    try:
        config = ARCHITECTURES[values["architecture"]].from_dict(values["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a model of its architecture: {error}"
        ) from error
    try:
        tensors = safetensors.torch.load(contents[WEIGHTS])
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is not a readable safetensors file: {error}") from error
    model = empty_model(config, torch_dtype)
    require_matching(weights, model, tensors)
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()


def read_file(path: Path) -> bytes:
    """Content of one of a potential's files; `PotentialNotFoundError` if there is none."""
    if not path.is_file():
        raise PotentialNotFoundError(
            f"a potential is a folder with {CONFIG} and {WEIGHTS}, but there is no {path}"
        )
    return path.read_bytes()


def require_matching(path: Path, model: Model, tensors: dict[str, torch.Tensor]) -> None:
    """Raise `CheckpointError` naming the tensors of a file that do not fit the model."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected == found:
        return
    problems = [
        *(f"{n} is missing" for n in sorted(expected.keys() - found.keys())),
        *(f"{n} is unknown" for n in sorted(found.keys() - expected.keys())),
        *(
            f"{n} has shape {found[n]} instead of {expected[n]}"
            for n in sorted(expected.keys() & found.keys())
            if expected[n] != found[n]
        ),
    ]
    shown = "; ".join(problems[:5])
    raise CheckpointError(
        f"{path} does not fit the configuration beside it: {shown} ({len(problems)} tensor(s) in "
        f"all); the two files belong to different models"
    )


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
