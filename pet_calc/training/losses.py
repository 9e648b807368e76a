"""The training loss: weighted mean squared errors of energy, forces and stress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import edge_vectors
from pet_calc.models import Results
from pet_calc.models.pet import PET
from pet_calc.models.pet.direct import direct_forces, direct_stress
from pet_calc.training.config import LossConfig
from pet_calc.training.data import Batch


@dataclass(frozen=True)
class LabelCounts:
    """How many labels the averages of a loss run over.

    They are those of a whole step. A step whose frames come in several batches, one after the
    other or on several processes, then has the sum of the losses of its batches.

    Attributes
    ----------
    energy, forces, stress : int
        Energies, force components and stress components; at least 1.
    """

    energy: int
    forces: int
    stress: int

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> LabelCounts:
        """Of the labels that are present in some batches."""
        found = [
            [int(torch.isfinite(x).sum()) for x in (b.energy, b.forces, b.stress)] for b in batches
        ]
        return cls(*(max(1, sum(column)) for column in zip(*found, strict=True)))


def loss(
    results: Results, batch: Batch, weights: LossConfig, counts: LabelCounts | None = None
) -> Tensor:
    r"""Weighted loss of a batch.

    .. math:: L = w_E \langle (\Delta E / N)^2 \rangle + w_F \langle \Delta F^2 \rangle
                + w_\sigma \langle \Delta\sigma^2 \rangle

    with averages over the frames, force components and stress components that have labels;
    eV, Å units. Labels that are absent (NaN in the batch) do not contribute.

    Parameters
    ----------
    results : Results
    batch : Batch
    weights : LossConfig
    counts : LabelCounts, optional
        What the averages are over; by default the labels of the batch.
    """
    n = counts or LabelCounts.of([batch])
    total = results.energy.new_zeros(())
    if weights.energy > 0:
        error = (results.energy - batch.energy) / batch.n_atoms
        total = total + weights.energy * squares(error, batch.energy) / n.energy
    if weights.forces > 0 and results.forces is not None:
        error = results.forces - batch.forces
        total = total + weights.forces * squares(error, batch.forces) / n.forces
    if weights.stress > 0 and results.stress is not None:
        error = results.stress - batch.stress
        total = total + weights.stress * squares(error, batch.stress) / n.stress
    return total


def direct_loss(model: PET, batch: Batch, weights: LossConfig, counts: LabelCounts) -> Tensor:
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
        total = total + weights.forces * squares(error, batch.forces) / counts.forces
    if model.config.direct_stress and weights.stress > 0:
        error = direct_stress(model, features, system) - batch.stress
        total = total + weights.stress * squares(error, batch.stress) / counts.stress
    return total


def squares(error: Tensor, label: Tensor) -> Tensor:
    """Sum of the squares where the label is not NaN."""
    # the double where keeps NaN labels out of the gradient
    return torch.where(torch.isfinite(label), error, torch.zeros_like(error)).square().sum()
