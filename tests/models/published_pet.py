"""A minimal reader of published PET checkpoints, for parity tests only.

Nothing in the file is executed: globals other than tensor storage become inert.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from pet_calc.models.pet import PET, PETConfig

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}
SAME_NAME = (
    "cutoff", "cutoff_width", "d_pet", "d_node", "d_head", "d_feedforward", "num_heads",
    "num_attention_layers", "num_gnn_layers", "attention_temperature",
)  # fmt: skip
RENAMED = {
    "node_heads.energy.0.": "node_head.",
    "edge_heads.energy.0.": "edge_head.",
    "node_last_layers.energy.0.energy___0.": "node_head.4.",
    "edge_last_layers.energy.0.energy___0.": "edge_head.4.",
}


class _Inert:
    """Stands for every class of the file that is not a tensor."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return _Inert

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def rebuild(
    flat: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> torch.Tensor:
    """A tensor from its storage."""
    return torch.as_strided(flat, size, stride, offset).clone()


def load_published_pet(checkpoint: Path) -> PET:
    """PET in float64 with the weights of a checkpoint, beside which lies its description."""
    description = json.loads(checkpoint.with_suffix(".json").read_text())
    hypers = description["hypers"]
    elements = sorted(description["atomic_types"])
    with zipfile.ZipFile(checkpoint) as archive:
        root = archive.namelist()[0].split("/")[0]
        state = _TensorUnpickler(archive, root).load()["best_model_state_dict"]
    config = PETConfig(elements=tuple(elements), **{k: hypers[k] for k in SAME_NAME})
    model = PET(config, dtype=torch.float64)
    weights = {}
    for name, value in state.items():
        if not name.startswith("backend.") or name.startswith("backend.species_to"):
            continue
        ours = name.removeprefix("backend.")
        for old, new in RENAMED.items():
            ours = ours.replace(old, new)
        weights[ours] = value.double()
    composition = description["composition_energy_eV"]
    weights["reference_energies"] = torch.tensor(
        [composition[str(z)] for z in elements], dtype=torch.float64
    )
    weights["energy_scale"] = torch.tensor(description["energy_scale"], dtype=torch.float64)
    model.load_state_dict(weights)
    return model
