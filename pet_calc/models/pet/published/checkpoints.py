"""Published PET checkpoints, as metatrain writes them, read without metatrain.

A checkpoint is turned into a `PETConfig` and the state dict of `PET`. Formats 1 to 16 are known,
and checkpoints that wrap such a model for uncertainties (LLPR).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pet_calc.errors import CheckpointError
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.published.migrations import PublishedModel, Target, migrate, tensors_of
from pet_calc.models.unpickling import Stub, read_checkpoint

_SAME_NAME: Final = (
    "cutoff", "cutoff_width", "d_pet", "d_node", "d_head", "d_feedforward", "num_heads",
    "num_attention_layers", "num_gnn_layers", "attention_temperature", "featurizer_type",
    "transformer_type", "normalization", "cutoff_function", "num_neighbors_adaptive",
    "adaptive_cutoff_method", "cutoff_width_adaptive", "zbl", "system_conditioning",
    "max_charge", "max_spin_multiplicity",
)  # fmt: skip
# hyper-parameters of formats that are newer than 16: only these values mean what 16 means
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "head_type": ("per_target",),
    "num_head_layers": (2,),
    "geometry_embedding_l_max": (None, 0, 1),
    "shallow_ensemble": (None,),
}
# eV
_ENERGY_UNITS: Final = {
    "": 1.0, "ev": 1.0, "mev": 1e-3, "hartree": 27.211386245988, "ry": 13.605693122994,
    "kcal/mol": 0.0433641153087705, "kj/mol": 0.0103642696562621,
}  # fmt: skip
_DIRECT: Final = {
    "non_conservative_forces": "direct_forces",
    "non_conservative_force": "direct_forces",
    "non_conservative_stress": "direct_stress",
}
_LAST: Final = 4  # place of the last linear map in a head


@dataclass(frozen=True, eq=False)
class ImportedPET:
    """A published model in this package's terms.

    Attributes
    ----------
    config : PETConfig
    state : dict of str to Tensor
        State dict of ``PET(config)``.
    version : int
        Format version of the file.
    ignored : tuple of str
        Targets of the published model that PET does not predict here.
    wrapper : dict of str to Tensor
        Tensors of the uncertainty model around it (LLPR), those of energies in eV; empty if there
        is none.
    """

    config: PETConfig
    state: dict[str, Tensor]
    version: int
    ignored: tuple[str, ...]
    wrapper: dict[str, Tensor]


def import_checkpoint(content: bytes) -> ImportedPET:
    """The model in a published checkpoint.

    Parameters
    ----------
    content : bytes
        The file, which may be compressed with gzip.

    Raises
    ------
    CheckpointError
        If the file is damaged, hostile, of another architecture, or uses something that PET does
        not have here.
    """
    checkpoint = read_checkpoint(content)
    wrapper: dict[str, Tensor] = {}
    while checkpoint.get("architecture_name") == "llpr":
        wrapper = tensors_of(checkpoint.get("best_model_state_dict")) or tensors_of(
            checkpoint.get("model_state_dict")
        )
        inner = checkpoint.get("wrapped_model_checkpoint")
        if not isinstance(inner, dict):
            raise CheckpointError("the LLPR checkpoint must hold the model that it wraps")
        checkpoint = inner
    architecture = checkpoint.get("architecture_name")
    if architecture != "pet":
        raise CheckpointError(
            f"the checkpoint must be of the architecture 'pet', got {architecture!r:.60}"
        )
    published = published_model(checkpoint)
    wrapper = in_electronvolts(wrapper, published.targets)
    try:
        config, state, ignored = convert(migrate(published))
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint (format {published.version}) lacks something that its format has: "
            f"{type(error).__name__} {error}"
        ) from error
    return ImportedPET(config, state, published.version, ignored, wrapper)


def published_model(checkpoint: dict[str, Any]) -> PublishedModel:
    """Contents of a checkpoint's dictionary, in the names of its own format."""
    version = checkpoint.get("model_ckpt_version", 1)
    data = checkpoint.get("model_data")
    if not isinstance(data, dict) or not isinstance(version, int):
        raise CheckpointError("the checkpoint must hold `model_data` and an integer version")
    hypers, info = data.get("model_hypers"), data.get("dataset_info")
    if not isinstance(hypers, dict) or not isinstance(info, Stub):
        raise CheckpointError("`model_data` must hold `model_hypers` and `dataset_info`")
    length = str(info.attribute("length_unit") or info.attribute("_length_unit") or "").lower()
    if length not in ("", "angstrom", "a"):
        raise CheckpointError(f"the model must measure lengths in angstrom, got {length!r}")
    targets = info.attribute("targets", {})
    types = info.attribute("_atomic_types", info.attribute("atomic_types"))
    if isinstance(types, Stub):  # a list-like class of old files
        types = types.arguments[0] if types.arguments else ()
    if not isinstance(targets, dict) or not isinstance(types, list | tuple | set | frozenset):
        raise CheckpointError("`dataset_info` must name the targets and the atomic types")
    return PublishedModel(
        version=version,
        hypers=hypers,
        atomic_types=tuple(sorted(int(z) for z in types)),
        targets={str(name): target_of(value) for name, value in targets.items()},
        state=tensors_of(checkpoint.get("best_model_state_dict")),
        last_state=tensors_of(checkpoint.get("model_state_dict")),
    )


def target_of(info: object) -> Target:
    """Quantity, unit and kind of one entry of the file's list of targets."""
    if not isinstance(info, Stub):
        raise CheckpointError("the targets of `dataset_info` must be described")
    quantity = info.attribute("quantity", info.attribute("_quantity")) or ""
    unit = info.attribute("unit", info.attribute("_unit")) or ""
    return Target(str(quantity), str(unit), bool(info.attribute("is_scalar", True)))


def convert(
    model: PublishedModel,
) -> tuple[PETConfig, dict[str, Tensor], tuple[str, ...]]:
    """Config, state dict, and the targets left out, of a model in the newest format."""
    heads = heads_of(model)
    config = config_of(model, heads)
    state = dict(weights(model, config, heads))
    elements = config.elements

    for k, name in enumerate(n for n, h in heads.items() if h in config.energy_heads):
        unit = energy_unit(model.targets[name])
        references = unit * composition(model.state, name, elements)
        scale = unit * scales(model, name, elements)[0]
        if k == 0:
            state["reference_energies"], state["energy_scale"] = references, scale
            if len(config.energy_heads) > 1:
                shape = (len(config.energy_heads) - 1, len(elements))
                state["variant_reference_energies"] = torch.zeros(shape, dtype=torch.float64)
                state["variant_scales"] = torch.ones(shape[0], dtype=torch.float64)
        else:
            state["variant_reference_energies"][k - 1] = references
            state["variant_scales"][k - 1] = scale
    for name, head in heads.items():
        if head == "direct_forces":
            state["direct_force_scale"] = scales(model, name, elements)
        if head == "direct_stress":
            state["direct_stress_scale"] = scales(model, name, elements)[0]
    if config.zbl:
        (radii,) = (v for k, v in model.state.items() if k.endswith(".covalent_radii"))
        state["zbl.covalent_radii"] = radii.double()
    return config, state, tuple(n for n in model.targets if n not in heads)


def heads_of(model: PublishedModel) -> dict[str, str]:
    """Target of the file to the head of `PET` that it becomes; the main energy comes first."""
    energies = [
        name
        for name, target in model.targets.items()
        if target.quantity == "energy" and target.scalar and name not in _DIRECT
    ]
    if not energies:
        raise CheckpointError(
            f"the model must predict an energy, but its targets are {list(model.targets)}"
        )
    energies.sort(key=lambda name: name != "energy")
    direct = {n: _DIRECT[n] for n in model.targets if n in _DIRECT}
    return {name: name for name in energies} | direct


def config_of(model: PublishedModel, heads: dict[str, str]) -> PETConfig:
    """The options of `PET` for the file's hyper-parameters."""
    hypers = model.hypers
    long_range = hypers.get("long_range") or {}
    if long_range.get("enable"):
        raise CheckpointError("the model has a long-range part, which PET does not have here")
    for name, allowed in _NEUTRAL.items():
        if name in hypers and hypers[name] not in allowed:
            raise CheckpointError(f"the model has {name} = {hypers[name]!r}, unknown here")
    lora = next((n for n in model.state if ".lora_" in n), None)
    if lora is not None:
        raise CheckpointError(
            f"the weights must be merged with their low-rank updates before the import; found "
            f"{lora}"
        )
    options = {name: hypers[name] for name in _SAME_NAME}
    activation = {"swiglu": "GLU", "silu": "SiLU"}.get(str(hypers["activation"]).lower())
    return PETConfig(
        elements=model.atomic_types,
        activation=activation,  # type: ignore[arg-type]
        energy_heads=tuple(h for h in heads.values() if h not in _DIRECT.values()),
        direct_forces="direct_forces" in heads.values(),
        direct_stress="direct_stress" in heads.values(),
        **options,
    )


def weights(
    model: PublishedModel, config: PETConfig, heads: dict[str, str]
) -> list[tuple[str, Tensor]]:
    """Names in `PET` and values of the network's tensors."""
    index = model.state["backend.species_to_species_index"]
    order = index[list(config.elements)]
    if bool((order < 0).any()):
        raise CheckpointError("the species of the weights and of the data set must agree")
    found = []
    for name, value in model.state.items():
        if not name.startswith("backend.") or "species_to_species_index" in name:
            continue
        new = name.removeprefix("backend.")
        if re.fullmatch(r"(node|edge)_(heads|last_layers)\..*", new):
            renamed = head_name(new, config, heads)
            if renamed is None:
                continue
            new = renamed
        elif new.endswith(("neighbor_embedder.weight",)) or re.fullmatch(
            r"(node_embedders\.\d+|edge_embedder)\.weight", new
        ):
            value = value[order]
        else:
            new = re.sub(r"^system_conditioning\.", "conditioning.", new)
        found.append((new, value))
    return found


def head_name(name: str, config: PETConfig, heads: dict[str, str]) -> str | None:
    """Name in `PET` of a tensor of a head; None if its target is left out."""
    module, target, layer, place, parameter = name.split(".")
    if target not in heads:
        return None
    kind, part = module.split("_", 1)
    number = _LAST if part == "last_layers" else int(place)
    head = heads[target]
    last = int(layer) == config.num_readout_layers - 1
    if head != config.energy_heads[0]:
        prefix = f"heads.{head}.{layer}.{kind}"
    elif last:
        prefix = f"{kind}_head"
    else:
        prefix = f"layer_heads.{layer}.{kind}"
    return f"{prefix}.{number}.{parameter}"


def energy_unit(target: Target) -> float:
    """An energy unit in eV."""
    unit = _ENERGY_UNITS.get(target.unit.lower())
    if unit is None:
        raise CheckpointError(
            f"the energy must be in one of {sorted(_ENERGY_UNITS)}, got {target.unit!r}"
        )
    return unit


def uncertainty_name(target: str) -> str:
    """Name that checkpoints give the uncertainty of an energy."""
    return target.replace("energy", "energy_uncertainty", 1)


def in_electronvolts(wrapper: dict[str, Tensor], targets: dict[str, Target]) -> dict[str, Tensor]:
    """Tensors of an uncertainty model, with the energies among them in eV."""
    found = dict(wrapper)
    for name, target in targets.items():
        for key in (f"multiplier_{uncertainty_name(name)}", f"llpr_ensemble_layers.{name}.weight"):
            if target.quantity == "energy" and key in found:
                found[key] = energy_unit(target) * found[key].double()
    return found


def composition(state: dict[str, Tensor], target: str, elements: Sequence[int]) -> Tensor:
    """Reference energies (n_species,) of a target, in its unit."""
    buffer = state.get(f"additive_models.0.{target}_composition_buffer")
    if buffer is None:
        return torch.zeros(len(elements), dtype=torch.float64)
    samples, values = read_block(buffer)
    table = dict(zip(samples.tolist(), values[:, 0].tolist(), strict=True))
    return torch.tensor([table[z] for z in elements], dtype=torch.float64)


def scales(model: PublishedModel, target: str, elements: Sequence[int]) -> Tensor:
    """Factors (n_species,) on what the network predicts for a target; equal if there is one."""
    single = model.state.get(f"scaler.{target}_scale")
    buffer = model.state.get(f"scaler.{target}_scaler_buffer")
    if buffer is None:
        value = 1.0 if single is None else float(single)
        return torch.full((len(elements),), value, dtype=torch.float64)
    samples, values = read_block(buffer)
    labels, factors = samples.tolist(), values[:, 0].tolist()
    if len(factors) == 1:
        return torch.full((len(elements),), factors[0], dtype=torch.float64)
    if labels == list(range(len(elements))):  # places in the list of elements
        return torch.tensor(factors, dtype=torch.float64)
    table = dict(zip(labels, factors, strict=True))
    return torch.tensor([table[z] for z in elements], dtype=torch.float64)


def read_block(buffer: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels (n,) and values (n, n_properties) of the one block in a serialized tensor map.

    Such a buffer is a zip archive of numpy arrays.
    """
    with np.load(io.BytesIO(buffer.numpy().tobytes()), allow_pickle=False) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.files}
        samples = archive[names["blocks/0/samples"]]
        values = np.asarray(archive[names["blocks/0/values"]], dtype=np.float64)
    if samples.dtype.names:
        samples = samples[samples.dtype.names[0]]
    samples = np.asarray(samples).reshape(len(values), -1)[:, 0]
    return samples, values.reshape(len(values), -1)
