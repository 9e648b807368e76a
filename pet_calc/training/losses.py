"""The training loss: weighted mean squared errors of energy, forces and stress."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.geometry import edge_vectors
from pet_calc.models import Results
from pet_calc.models.pet import PET
from pet_calc.models.pet.direct import direct_forces, direct_stress
from pet_calc.training.config import LossConfig
from pet_calc.training.data import Batch


def loss(results: Results, batch: Batch, weights: LossConfig) -> Tensor:
    r"""Weighted loss of a batch.

    .. math:: L = w_E \langle (\Delta E / N)^2 \rangle + w_F \langle \Delta F^2 \rangle
                + w_\sigma \langle \Delta\sigma^2 \rangle

    with averages over the frames, force components and stress components that have labels;
    eV, Å units. Labels that are absent (NaN in the batch) do not contribute.
    """
    total = results.energy.new_zeros(())
    if weights.energy > 0:
        error = (results.energy - batch.energy) / batch.n_atoms
        total = total + weights.energy * mean_square(error, torch.isfinite(batch.energy))
    if weights.forces > 0 and results.forces is not None:
        total = total + weights.forces * mean_square(
            results.forces - batch.forces, torch.isfinite(batch.forces)
        )
    if weights.stress > 0 and results.stress is not None:
        total = total + weights.stress * mean_square(
            results.stress - batch.stress, torch.isfinite(batch.stress)
        )
    return total


def direct_loss(model: PET, batch: Batch, weights: LossConfig) -> Tensor:
    """Loss of the heads that predict forces and stress directly, with the same weights.

    They share the network with the energy, but not the derivatives: a second forward pass.
    """
    system = batch.system
    species = model.species(system.numbers)
    vectors = edge_vectors(system, batch.edges).to(model.dtype)
    features = model.features(species, batch.edges, vectors, batch.conditions)
    total = batch.energy.new_zeros(())
    if model.config.direct_forces and weights.forces > 0:
        error = direct_forces(model, features, species, system) - batch.forces
        total = total + weights.forces * mean_square(error, torch.isfinite(batch.forces))
    if model.config.direct_stress and weights.stress > 0:
        error = direct_stress(model, features, system) - batch.stress
        total = total + weights.stress * mean_square(error, torch.isfinite(batch.stress))
    return total


def mean_square(error: Tensor, present: Tensor) -> Tensor:
    """Mean of the squares where `present`; 0 if nothing is."""
    # the double where keeps NaN labels out of the gradient
    safe = torch.where(present, error, torch.zeros_like(error))
    return safe.square().sum() / present.sum().clamp_min(1)
