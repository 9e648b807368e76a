"""The form in which pet-kokkos keeps the public PET models.

One JSON file holds hyper-parameters, the map from atomic numbers to species, reference energies
and the energy scale; the tensors beside it bear metatrain's names
[tools/convert_pet.py of https://github.com/peterspackman/pet-kokkos, format 1]::

    {"format_version": 1, "architecture": "pet", "target": "energy", "hypers": {...},
     "length_unit": "angstrom", "energy_unit": "eV", "energy_scale": 1.3, "n_species": 2,
     "species_to_index": [-1, 0, -1, ..., 1], "composition_energies": [-13.6, -75.0]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pet_calc.errors import CheckpointError
from pet_calc.models.pet.published.checkpoints import ImportedPET, config_of, energy_unit, weights
from pet_calc.models.pet.published.migrations import NEWEST, PublishedModel, Target

FORMAT: Final = 1

# what its reader assumes where an older file says nothing
_DEFAULTS: Final[dict[str, Any]] = {
    "adaptive_cutoff_method": "grid",
    "zbl": False,
    "system_conditioning": False,
    "max_charge": 10,
    "max_spin_multiplicity": 10,
    "long_range_enabled": False,
}
_HEADS: Final = {"energy": "energy"}


def import_kokkos(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ImportedPET:
    """The model of such a pair of files.

    Parameters
    ----------
    description : mapping
        Content of the JSON file.
    tensors : mapping of str to Tensor
        Content of the safetensors file.

    Raises
    ------
    CheckpointError
        If the description is of another format, lacks something, or asks for what PET does not
        have here or the files do not hold.
    """
    found = (description.get("format_version", FORMAT), description.get("architecture", "pet"))
    if found != (FORMAT, "pet"):
        raise CheckpointError(
            f"the description must be of format {FORMAT} and architecture 'pet', got {found}"
        )
    try:
        hypers = _DEFAULTS | dict(description["hypers"])
        hypers.setdefault("cutoff_width_adaptive", hypers["cutoff_width"])
        if (hypers.get("num_neighbors_adaptive") or 0) <= 0:
            hypers["num_neighbors_adaptive"] = None
        require_supported(hypers, str(description.get("length_unit", "angstrom")))
        index = torch.tensor(description["species_to_index"], dtype=torch.int64)
        elements = tuple((index >= 0).nonzero()[:, 0].tolist())
        target = Target("energy", str(description.get("energy_unit", "eV")), scalar=True)
        model = PublishedModel(
            version=NEWEST,
            hypers=hypers,
            atomic_types=elements,
            targets={"energy": target},
            state={f"backend.{name}": tensor for name, tensor in tensors.items()}
            | {"backend.species_to_species_index": index},
            last_state={},
        )
        config = config_of(model, _HEADS)
        state = dict(weights(model, config, _HEADS))
        unit = energy_unit(target)
        references = torch.tensor(description["composition_energies"], dtype=torch.float64)
        state["reference_energies"] = unit * references[index[list(elements)]]
        state["energy_scale"] = torch.tensor(
            unit * float(description["energy_scale"]), dtype=torch.float64
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description of the model is not in order: {type(error).__name__} {error}"
        ) from error
    return ImportedPET(config, state, FORMAT, (), {})


def require_supported(hypers: Mapping[str, Any], length_unit: str) -> None:
    """Raise `CheckpointError` for a model whose files do not say all that it takes."""
    if hypers["zbl"]:
        raise CheckpointError(
            "the model has a ZBL repulsion, whose radii this form does not hold; import the "
            "checkpoint that it was made from"
        )
    if hypers["long_range_enabled"]:
        raise CheckpointError("the model has a long-range part, which PET does not have here")
    if length_unit.lower() not in ("angstrom", "a"):
        raise CheckpointError(f"the model must measure lengths in angstrom, got {length_unit!r}")
