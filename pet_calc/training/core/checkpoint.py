"""State of a training run on disk: tensors in one safetensors file, the rest as JSON inside it.

Nothing is pickled. A checkpoint replaces its predecessor in one rename, so that a run killed at
any moment finds a whole one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pet_calc.errors import CheckpointError

CHECKPOINT: Final = "checkpoint.safetensors"


class CheckpointTimer:
    """When a checkpoint is due: `seconds` after the one before."""

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"`checkpoint_seconds` must not be negative, got {seconds}")
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether it is time; if so, the time to the next one begins."""
        if time.monotonic() - self.last <= self.seconds:
            return False
        self.last = time.monotonic()
        return True


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of dicts, lists, tuples, tensors and plain values."""
    tensors: dict[str, Tensor] = {}
    tree = flatten(state, tensors)
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"tree": json.dumps(tree)})
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that `save_checkpoint` wrote.

    Raises
    ------
    CheckpointError
        If the file is damaged or no checkpoint of this package.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            # clones are aligned in memory as fresh tensors are; views into the file are not, and
            # vectorised sums then round differently
            tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
            metadata = handle.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if "tree" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but no training checkpoint")
    state = unflatten(json.loads(metadata["tree"]), tensors)
    assert isinstance(state, dict)
    return state


def resumed_state(
    path: Path, config: dict[str, Any], changeable: Collection[str] = ()
) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from; None if there is none yet.

    Parameters
    ----------
    path : Path
    config : dict
        Configuration of the run; that of the checkpoint is its item "config".
    changeable : collection of str
        Options that may differ, since they matter after the last step only.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or belongs to another configuration.
    """
    if not path.is_file():
        return None
    state = load_checkpoint(path)
    saved = state.get("config", {})
    changed = sorted(k for k in {*saved, *config} if saved.get(k) != config.get(k))
    if changed := [k for k in changed if k not in changeable]:
        raise CheckpointError(
            f"{path} belongs to another configuration (different: {changed}); choose another "
            f"output folder, or delete it to start anew"
        )
    return state


def flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON-able form of a tree; tensors go into `tensors` and leave their name."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # the memory layout is kept: a matrix product on another one differs in its last bits
        transposed = value.dim() == 2 and not value.is_contiguous() and value.T.is_contiguous()
        tensors[name] = (value.T if transposed else value).detach().contiguous().clone()
        return {"transposed" if transposed else "tensor": name}
    if isinstance(value, dict):
        # pairs keep keys that are not strings, such as the indices of optimizer states
        return {"dict": [[k, flatten(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flatten(v, tensors) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a checkpoint holds tensors and plain values, got {type(value).__name__}")


def unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of `flatten`."""
    ((kind, content),) = tree.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "transposed":
            return tensors[content].T
        case "dict":
            return {k: unflatten(v, tensors) for k, v in content}
        case "list":
            return [unflatten(v, tensors) for v in content]
        case "tuple":
            return tuple(unflatten(v, tensors) for v in content)
        case _:
            return content
