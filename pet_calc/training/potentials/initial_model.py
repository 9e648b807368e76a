"""The model that a training run starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.io.models.weights import DTYPES
from pet_calc.models.architectures import TrainableConfig, TrainableModel, new_model
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.add_angles import adds_angles, with_angles
from pet_calc.models.pet.add_heads import adds_heads, with_new_heads
from pet_calc.pretrained import load
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import (
    Batch,
    energy_shift,
    fit_reference_energies,
    shortest_distances,
    with_energies_shifted,
)
from pet_calc.training.potentials.data_config import FineTuneConfig
from pet_calc.training.potentials.frame_order import Order
from pet_calc.training.potentials.lora import add_low_rank


def starting_model(
    config: TrainConfig, frames: Sequence[LabeledFrame], prepared: Sequence[Batch]
) -> TrainableModel:
    """Seeded weights, or those of another potential; the rest from the training frames.

    Of a new model, reference energies come from the total energies, the scales of energy and direct
    forces from the forces, that of the direct stress from the virials, the onset of the repulsion
    from the shortest distances.
    """
    if config.fine_tune is not None:
        return tunable_model(config, config.fine_tune)
    # the forked generator leaves the caller's random state as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = new_model(config.model, DTYPES[config.dtype])
        for head, part in zip(heads_of(model, config), frames_of(frames, config), strict=True):
            with torch.no_grad():
                for last in head.last_layers:
                    last.weight.mul_(0.3)
                    last.bias.zero_()
            references, scale = constants(head)
            references.copy_(fit_reference_energies(part, config.model.elements))
            scale.fill_(magnitude([f.forces for f in part]) or 1.0)
        if isinstance(model, PET):
            scale_direct_heads(model, frames)
        if model.repulsion is not None:
            reach = config.repulsion_reach
            model.repulsion.onset.copy_(
                shortest_distances(prepared, config.model.elements, reach=reach)
            )
        if isinstance(model, Crystalformer):
            some = Batch.concatenate(prepared[:: max(1, len(prepared) // 32)])
            model.freeze_widths(some.system, some.edges)
        return model


def source_model(source: str, wanted: TrainableConfig, dtype: str) -> TrainableModel:
    """The potential that a fine-tuning starts from, frozen, with heads or angles that are wanted.

    Raises
    ------
    ValueError
        If it is not of the architecture, elements and sizes that [model] asks for.
    """
    potential = load(source, dtype)
    model = potential.model
    if isinstance(model, PET | Crystalformer) and model.config == wanted:
        return model
    if isinstance(model, PET) and isinstance(wanted, PETConfig):
        if adds_heads(wanted, model.config):
            return with_new_heads(model, wanted)
        if adds_angles(wanted, model.config):
            return with_angles(model, wanted)
    raise ValueError(
        f"[model] must be the configuration of the potential that [fine_tune] starts from, to "
        f"whose `energy_heads` others may be added, or to whose attention angles "
        f"(`angular_degree`); copy it from the train.toml or config.json of {potential.name}"
    )


def with_one_zero(model: TrainableModel, frames: Sequence[Batch], order: Order) -> list[Batch]:
    """Frames with the zero of energy of the replayed ones moved onto that of the new ones.

    Old and new data may come from different codes or pseudopotentials. What each of them has
    beyond the starting potential is fitted on composition, and the difference of the fits goes.

    Parameters
    ----------
    model : PET or Crystalformer
        The starting potential.
    frames : sequence of Batch
    order : Order
        Which of them are replayed.
    """
    old = set(order.replay)
    replayed = [frames[k] for k in order.replay]
    new = [f for k, f in enumerate(frames) if k not in old and f.level == replayed[0].level]
    if not new:  # those of other levels have zeros of their own
        return list(frames)
    shift = energy_shift(model, new) - energy_shift(model, replayed)
    shifted = with_energies_shifted(replayed, model.atomic_numbers, shift)
    found = dict(zip(order.replay, shifted, strict=True))
    return [found.get(k, f) for k, f in enumerate(frames)]


def heads_of(model: TrainableModel, config: TrainConfig) -> list[TrainableModel]:
    """The model read through each of the energy heads that are trained."""
    if not config.levels or not isinstance(model, PET):
        return [model]
    return [model.with_energy_head(level) for level in config.levels]


def frames_of(frames: Sequence[LabeledFrame], config: TrainConfig) -> list[Sequence[LabeledFrame]]:
    """The frames of each of these heads."""
    if not config.levels:
        return [frames]
    return [
        [f for f in frames if (f.level or config.main_level) == level] for level in config.levels
    ]


def tunable_model(config: TrainConfig, tune: FineTuneConfig) -> TrainableModel:
    """The potential that a fine-tuning starts from, with the weights to be trained unfrozen.

    Its reference energies are aligned with the new data as the first stage begins; its energy
    scale and the onset of its repulsion stay.
    """
    model = source_model(tune.source, config.model, config.dtype)
    if tune.method == "lora":
        add_low_rank(model, tune.rank, tune.alpha, config.seed)
        return model.train()
    model.requires_grad_(tune.method == "full")
    if tune.method == "heads":
        for head in heads_of(model, config):
            for last in head.last_layers:
                last.requires_grad_(True)
    return model.train()


def constants(model: TrainableModel) -> tuple[Tensor, Tensor]:
    """Reference energies (n_species,) and scale of the energy that is trained, as views."""
    if isinstance(model, PET):
        return model.head_constants()
    return model.reference_energies, model.energy_scale


def scale_direct_heads(model: PET, frames: Sequence[LabeledFrame]) -> None:
    """Set the scales of direct forces and stress to the sizes of the labels."""
    forces = magnitude([f.forces for f in frames])
    if forces and model.config.direct_forces:
        model.direct_force_scale.fill_(forces)
    virials = magnitude(
        [
            None if f.stress is None else f.stress * f.atoms.cell.volume / len(f.atoms)
            for f in frames
        ]
    )
    if virials and model.config.direct_stress:
        model.direct_stress_scale.fill_(virials)


def magnitude(labels: Sequence[NDArray[np.float64] | None]) -> float:
    """Root mean square of the labels, without those of stationary points; 0 without any."""
    given = [x[np.isfinite(x)] for x in labels if x is not None and np.nan_to_num(x).any()]
    return float(np.sqrt(np.square(np.concatenate(given)).mean())) if given else 0.0
