"""Fitted heads for vectors and tensors, as a safetensors file beside the weights of their model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from pet_calc.errors import CheckpointError, OutputError
from pet_calc.models.ecse.tensors import TensorHead
from pet_calc.models.pet import PET


def digest(model: PET) -> str:
    """SHA-256 of the weights of a model as float32, so that it holds in either precision."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
    return found.hexdigest()


def save_tensor_head(path: Path | str, head: TensorHead, model: PET) -> None:
    """Write a head, with the digest of the model whose features it reads.

    Raises
    ------
    OutputError
        If the file is there already or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise OutputError(f"a head is never overwritten, but {path} exists; choose another name")
    metadata = {
        "irreps": head.irreps, "quantity": head.quantity, "unit": head.unit,
        "model_sha256": digest(model),
    }  # fmt: skip
    try:
        safetensors.torch.save_file(
            {
                "weight": head.weight.detach().cpu().contiguous(),
                "edge_weight": head.edge_weight.detach().cpu().contiguous(),
            },
            path,
            metadata,
        )
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def load_tensor_head(path: Path | str, model: PET) -> TensorHead:
    """Read a head that was fitted to `model`.

    Raises
    ------
    CheckpointError
        If the file is no such head, or belongs to another model.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            weight, edge_weight = file.get_tensor("weight"), file.get_tensor("edge_weight")
        irreps, expected = metadata["irreps"], metadata["model_sha256"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path} must be a file of save_tensor_head, but: {error}") from error
    found = digest(model)
    if found != expected:
        raise CheckpointError(
            f"{path} was fitted to the model with the digest {expected[:12]}, but this one has "
            f"{found[:12]}; load the model that it was fitted to, or fit a new head"
        )
    return TensorHead(
        irreps, weight, edge_weight, metadata.get("quantity", ""), metadata.get("unit", "")
    )
