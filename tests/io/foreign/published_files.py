"""Small models in the forms of other packages, written by the tests themselves."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pet_calc.models.pet.published.checkpoints import ImportedPET

HYPERS = (
    "d_pet", "d_head", "d_node", "d_feedforward", "num_heads", "num_attention_layers",
    "num_gnn_layers", "normalization", "transformer_type", "featurizer_type",
    "attention_temperature", "cutoff", "cutoff_width", "cutoff_function",
    "num_neighbors_adaptive", "adaptive_cutoff_method", "cutoff_width_adaptive",
    "system_conditioning", "max_charge", "max_spin_multiplicity", "zbl",
)  # fmt: skip


def upstream_state(imported: ImportedPET) -> dict[str, torch.Tensor]:
    """Tensors of a model with one energy head under metatrain's names, without ``backend.``."""
    last = imported.config.num_readout_layers - 1
    state = {}
    for name, tensor in imported.state.items():
        parts = name.split(".")
        if parts[0] in ("node_head", "edge_head", "layer_heads"):
            layer, kind, *rest = (
                (parts[1], *parts[2:])
                if parts[0] == "layer_heads"
                else (str(last), parts[0].removesuffix("_head"), *parts[1:])
            )
            place, parameter = rest
            new = (
                f"{kind}_last_layers.energy.{layer}.energy___0.{parameter}"
                if place == "4"
                else f"{kind}_heads.energy.{layer}.{place}.{parameter}"
            )
        elif parts[0] == "conditioning":
            new = name.replace("conditioning", "system_conditioning", 1)
        elif parts[0] in ("gnn_layers", "combination_norms", "combination_mlps", "node_embedders",
                          "edge_embedder"):  # fmt: skip
            new = name
        else:
            continue
        state[new] = tensor
    return state


def description_of(imported: ImportedPET) -> dict[str, Any]:
    """The JSON file of pet-kokkos for a model."""
    config = imported.config
    hypers = {name: getattr(config, name) for name in HYPERS}
    hypers["activation"] = {"GLU": "SwiGLU", "SiLU": "SiLU"}[config.activation]
    hypers["head_dim"] = config.d_pet // config.num_heads
    hypers["num_readout_layers"] = config.num_readout_layers
    hypers["long_range_enabled"] = False
    index = [-1] * (config.elements[-1] + 1)
    for k, z in enumerate(config.elements):
        index[z] = k
    return {
        "format_version": 1,
        "architecture": "pet",
        "source_model": "a test",
        "target": "energy",
        "hypers": hypers,
        "length_unit": "angstrom",
        "energy_unit": "eV",
        "energy_scale": float(imported.state["energy_scale"]),
        "n_species": len(config.elements),
        "atomic_types": list(config.elements),
        "species_to_index": index,
        "composition_energies": imported.state["reference_energies"].tolist(),
    }


def write_kokkos(imported: ImportedPET, stem: Path) -> tuple[Path, Path]:
    """Write a model as pet-kokkos keeps it."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = (stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors"))
    files[0].write_text(json.dumps(description_of(imported), indent=2))
    tensors = {name: t.contiguous() for name, t in upstream_state(imported).items()}
    safetensors.torch.save_file(tensors, files[1])
    return files


def checkpoint_bytes(imported: ImportedPET) -> bytes:
    """A model with one energy head as a checkpoint of format 16."""
    config = imported.config
    description = description_of(imported)
    hypers = description["hypers"]
    # classes of a module that the reader never imports: they come out as stubs
    module = types.ModuleType("metatrain_stand_in")
    for name in ("DatasetInfo", "TargetInfo"):
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
    info, target = module.DatasetInfo(), module.TargetInfo()
    target.__dict__.update(quantity="energy", unit="eV", is_scalar=True)
    info.__dict__.update(
        length_unit="angstrom", _atomic_types=list(config.elements), targets={"energy": target}
    )
    state = {f"backend.{name}": tensor for name, tensor in upstream_state(imported).items()}
    state["backend.species_to_species_index"] = torch.tensor(description["species_to_index"])
    state["scaler.energy_scale"] = imported.state["energy_scale"]
    content = {
        "architecture_name": "pet",
        "model_ckpt_version": 16,
        "model_data": {"model_hypers": hypers, "dataset_info": info},
        "model_state_dict": state,
        "best_model_state_dict": state,
    }
    buffer = io.BytesIO()
    sys.modules[module.__name__] = module
    try:
        torch.save(content, buffer)
    finally:
        del sys.modules[module.__name__]
    return buffer.getvalue()
