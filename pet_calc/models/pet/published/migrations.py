"""Contents of a published checkpoint, and the steps from each format version to the next.

Metatrain numbers the formats of its PET checkpoints; `MIGRATIONS` holds one pure function for each
step, so that a file of any version is read as one of the newest. Steps that changed nothing which
matters for evaluation are absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from pet_calc.errors import CheckpointError

NEWEST: Final = 16


@dataclass(frozen=True)
class Target:
    """A quantity that a published model predicts.

    Attributes
    ----------
    quantity, unit : str
        As the file states them; may be empty.
    scalar : bool
        True for an energy.
    """

    quantity: str
    unit: str
    scalar: bool


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """Content of a published checkpoint.

    Attributes
    ----------
    version : int
        Format of the names in `state`.
    hypers : dict
        Hyper-parameters under upstream's names.
    atomic_types : tuple of int
        Atomic numbers covered, ascending.
    targets : dict of str to Target
        In the file's order.
    state : dict of str to Tensor
        The tensors that were best in validation; empty if none were marked so.
    last_state : dict of str to Tensor
        Those of the last step of training.
    """

    version: int
    hypers: dict[str, Any]
    atomic_types: tuple[int, ...]
    targets: dict[str, Target]
    state: dict[str, Tensor]
    last_state: dict[str, Tensor]

    def with_names(self, rename: Callable[[str], str]) -> PublishedModel:
        """The same with other names of tensors."""
        return replace(
            self,
            state={rename(k): v for k, v in self.state.items()},
            last_state={rename(k): v for k, v in self.last_state.items()},
        )

    def with_hypers(self, **defaults: Any) -> PublishedModel:
        """The same with hyper-parameters added where they are absent."""
        return replace(self, hypers=defaults | self.hypers)


def migrate(model: PublishedModel) -> PublishedModel:
    """The model as a file of the newest format would hold it.

    Raises
    ------
    CheckpointError
        If the format is newer than this package.
    """
    if not 1 <= model.version <= NEWEST:
        raise CheckpointError(
            f"the checkpoint has format version {model.version}, but versions 1 to {NEWEST} are "
            f"known; a newer pet_calc may read it"
        )
    for version in range(model.version, NEWEST):
        step = MIGRATIONS.get(version)
        model = replace(model if step is None else step(model), version=version + 1)
    return model


def _from_1(model: PublishedModel) -> PublishedModel:
    """The composition model's index moved."""
    return model.with_names(
        lambda name: name.replace(
            "additive_models.0.type_to_index", "additive_models.0.model.type_to_index"
        )
    )


def _from_5(model: PublishedModel) -> PublishedModel:
    """The best state became obligatory."""
    return model if model.state else replace(model, state=model.last_state)


def _from_6(model: PublishedModel) -> PublishedModel:
    """One vector of scales became one table for each target."""

    def split(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if "scaler.scales" not in state:
            return state
        scales = state["scaler.scales"].double().reshape(-1)
        tables = {f"scaler.{t}_scale": scales[k] for k, t in enumerate(model.targets)}
        return {k: v for k, v in state.items() if k != "scaler.scales"} | tables

    return replace(model, state=split(model.state), last_state=split(model.last_state))


def _from_7(model: PublishedModel) -> PublishedModel:
    """Architectures became options, and embeddings lost the row for padding."""
    if "node_embedding.weight" in model.last_state:
        return _from_7_large(model)

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = {}
        for name, value in state.items():
            new = name.replace(".mlp.0.", ".mlp.w_in.").replace(".mlp.3.", ".mlp.w_out.")
            if name == "embedding.weight":
                new = "edge_embedder.weight"
            elif ".node_embedder." in name:
                new = f"node_embedders.{name.split('.')[1]}.weight"
            padded = (new != name and "embedder" in new) or ".neighbor_embedder." in name
            converted[new] = value[:-1] if padded else value
        return converted

    return replace(
        model, state=convert(model.state), last_state=convert(model.last_state)
    ).with_hypers(
        normalization="LayerNorm",
        activation="SiLU",
        transformer_type="PostLN",
        featurizer_type="residual",
        d_node=model.hypers["d_pet"],
    )


def _from_7_large(model: PublishedModel) -> PublishedModel:
    """The large models of version 7 had the newer architecture under names of their own."""
    state = {}
    for name, value in model.last_state.items():
        new = name.replace("combination_rmsnorms", "combination_norms")
        if name == "embedding.weight":
            new = "edge_embedder.weight"
        elif name == "node_embedding.weight":
            new = "node_embedders.0.weight"
        padded = new.endswith("_embedder.weight") and ".edge_embedder" not in new
        state[new] = value[:-1] if padded or new == "node_embedders.0.weight" else value
    d = model.hypers["d_pet"]
    hypers = model.hypers | {
        "normalization": "RMSNorm",
        "activation": "SwiGLU",
        "transformer_type": "PreLN",
        "featurizer_type": "feedforward",
        "d_node": 4 * d,
        "d_feedforward": 2 * d,
    }
    return replace(model, hypers=hypers, state=state, last_state=state)


def _from_9(model: PublishedModel) -> PublishedModel:
    """The cutoff function became an option, as did the adaptive cutoff."""
    return model.with_hypers(cutoff_function="Cosine", num_neighbors_adaptive=None)


def _from_10(model: PublishedModel) -> PublishedModel:
    """So did the attention's temperature."""
    return model.with_hypers(attention_temperature=1.0)


def _from_11(model: PublishedModel) -> PublishedModel:
    """Until then adaptive cutoffs came from a grid."""
    return model.with_hypers(adaptive_cutoff_method="grid")


def _from_13(model: PublishedModel) -> PublishedModel:
    """Until then one width served for edges and for counting neighbors."""
    return model.with_hypers(cutoff_width_adaptive=model.hypers["cutoff_width"])


def _from_14(model: PublishedModel) -> PublishedModel:
    """Charge and spin became inputs."""
    return model.with_hypers(system_conditioning=False, max_charge=10, max_spin_multiplicity=10)


_OUTSIDE: Final = ("additive_models.", "scaler.", "long_range", "finetune_config")


def _from_15(model: PublishedModel) -> PublishedModel:
    """The network moved into a module of its own."""
    return model.with_names(lambda n: n if n.startswith(_OUTSIDE) else f"backend.{n}")


MIGRATIONS: Final[dict[int, Callable[[PublishedModel], PublishedModel]]] = {
    1: _from_1,
    5: _from_5,
    6: _from_6,
    7: _from_7,
    9: _from_9,
    10: _from_10,
    11: _from_11,
    13: _from_13,
    14: _from_14,
    15: _from_15,
}
"""Version to the step that leads from it to the next."""


def tensors_of(state: object) -> dict[str, Tensor]:
    """The tensors of a state dict that may hold other things; empty if it is none."""
    if not isinstance(state, dict):
        return {}
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
