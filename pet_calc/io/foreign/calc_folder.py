"""The calculation folders in which the first public PET kept its models.

Such a folder holds ``hypers_used.yaml``, ``all_species.npy``, ``self_contributions.npy`` and the
weights, ``best_val_{mae,rmse}_{energies,forces,both}_model_state_dict``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.models.pet.published.migrations import tensors_of
from pet_calc.models.pet.published.original import OriginalPET, OriginalPETConfig
from pet_calc.models.unpickling import read_checkpoint

BEST: Final = "best_val_rmse_both"

# options that this package has in one form only
_REQUIRED: Final[dict[str, object]] = {
    "ADD_TOKEN_FIRST": True,
    "ADD_TOKEN_SECOND": True,
    "AVERAGE_BOND_ENERGIES": False,
    "COMPRESS_MODE": "mlp",
    "D_OUTPUT": 1,
    "HEADS_CENTRAL_SPECIFIC": False,
    "K_CUT": None,
    "N_TARGETS": 1,
    "TRANSFORMERS_CENTRAL_SPECIFIC": False,
    "USE_ADDITIONAL_SCALAR_ATTRIBUTES": False,
    "USE_LONG_RANGE": False,
}
_RENAMED: Final = (
    (r"^model\.pet_model\.", ""),
    (r"\.r_embedding\.", ".geometry_embedder."),
    (r"\.trans\.layers\.", ".layers."),
    (r"\.trans\.final_norm\.", ".final_norm."),
    (r"\.attention\.", "."),
    (r"\.mlp\.3\.", ".mlp.2."),
    (r"^heads\.(\d+)\.model\.nn\.", r"gnn_layers.\1.head."),
    (r"^bond_heads\.(\d+)\.model\.nn\.", r"gnn_layers.\1.bond_head."),
)
# copies of other tensors, and a template that was never used
_COPIES: Final = re.compile(
    r"\.trans_layer\.|^(central_tokens|messages|messages_bonds)_predictors\."
)


def read_hypers(text: str) -> dict[str, Any]:
    """The architectural options of a ``hypers_used.yaml``: plain scalars, one on each line."""
    values: dict[str, Any] = {}
    section = ""
    for line in text.splitlines():
        found = re.fullmatch(r"(\s*)(\w+):\s*(.*?)\s*", line)
        if not found:
            continue
        indent, key, value = found.groups()
        if not indent:
            section = key
        elif section == "ARCHITECTURAL_HYPERS":
            values[key] = scalar(value)
    return values


def scalar(text: str) -> bool | int | float | str | None:
    """A YAML scalar."""
    plain = {"true": True, "false": False, "null": None, "": None, "~": None}
    if text.lower() in plain:
        return plain[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("'\"")


def calc_folder_files(folder: Path, best: str = BEST) -> tuple[Path, ...]:
    """The files that define the model: options, species, self-contributions, weights.

    Raises
    ------
    PotentialNotFoundError
        If one is missing.
    """
    names = (
        "hypers_used.yaml", "all_species.npy", "self_contributions.npy", f"{best}_model_state_dict",
    )  # fmt: skip
    for name in names:
        if not (folder / name).is_file():
            raise PotentialNotFoundError(f"a calculation folder of PET must hold {name}: {folder}")
    return tuple(folder / name for name in names)


def load_calc_folder(
    folder: Path | str, dtype: torch.dtype = torch.float32, *, best: str = BEST
) -> OriginalPET:
    """The model of a calculation folder, frozen; nothing in it is executed.

    Parameters
    ----------
    folder : path
    dtype : torch.dtype
        Of the computation.
    best : str
        Which weights: those with the best validation error named here.

    Raises
    ------
    PotentialNotFoundError
        If a file is missing.
    CheckpointError
        If a file is damaged or the model uses an option that is not known here.
    """
    folder = Path(folder)
    options, all_species, contributions, weights = calc_folder_files(folder, best)
    try:
        hypers = read_hypers(options.read_text(encoding="utf-8"))
        species = np.load(all_species, allow_pickle=False)
        references = np.load(contributions, allow_pickle=False)
        config = config_of(hypers, tuple(int(z) for z in species))
        state = dict(renamed(read_checkpoint(weights.read_bytes()), len(species)))
        state["reference_energies"] = torch.from_numpy(references.astype(np.float64).reshape(-1))
        with torch.random.fork_rng(devices=[]):
            model = OriginalPET(config, dtype=dtype)
        model.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder} does not hold a PET model in order: {type(error).__name__} {error}"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return model.requires_grad_(False).eval()


def config_of(hypers: dict[str, Any], elements: tuple[int, ...]) -> OriginalPETConfig:
    """The options under this package's names."""
    for name, value in _REQUIRED.items():
        if hypers.get(name, value) != value:
            raise CheckpointError(f"{name} must be {value}, got {hypers[name]!r}: unknown here")
    if str(hypers.get("ACTIVATION", "silu")).lower() != "silu":
        raise CheckpointError(f"ACTIVATION must be silu, got {hypers['ACTIVATION']!r}")
    if hypers.get("USE_ONLY_LENGTH"):
        geometry = "length"
    else:
        geometry = "vector and length" if hypers.get("USE_LENGTH", True) else "vector"
    return OriginalPETConfig(
        elements=elements,
        cutoff=float(hypers["R_CUT"]),
        cutoff_width=float(hypers["CUTOFF_DELTA"]),
        d_model=hypers["TRANSFORMER_D_MODEL"],
        d_feedforward=hypers["TRANSFORMER_DIM_FEEDFORWARD"],
        d_head=hypers["HEAD_N_NEURONS"],
        num_heads=hypers["TRANSFORMER_N_HEAD"],
        num_attention_layers=hypers["N_TRANS_LAYERS"],
        num_gnn_layers=hypers["N_GNN_LAYERS"],
        transformer_type=hypers["TRANSFORMER_TYPE"],
        geometry=geometry,  # type: ignore[arg-type]
        embedding_activation=bool(hypers.get("R_EMBEDDING_ACTIVATION", False)),
        blend_neighbor_species=bool(hypers.get("BLEND_NEIGHBOR_SPECIES", False)),
        bond_energies=bool(hypers.get("USE_BOND_ENERGIES", True)),
        residual_factor=float(hypers.get("RESIDUAL_FACTOR", 0.5)),
    )


def renamed(state: dict[str, Any], n_species: int) -> list[tuple[str, Tensor]]:
    """Tensors under the names of `OriginalPET`, embeddings without their row for padding."""
    found = []
    for name, tensor in tensors_of(state).items():
        new = re.sub(r"^(module\.)+", "", name)
        for pattern, replacement in _RENAMED:
            new = re.sub(pattern, replacement, new)
        if _COPIES.search(new):
            continue
        embeds = new == "embedding.weight" or new.endswith(
            ("central_embedder.weight", "neighbor_embedder.weight")
        )
        found.append((new, tensor[:n_species] if embeds else tensor))
    return found
