"""The training loss: weighted mean squared (or Huber) errors of energy, forces and stress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import edge_vectors
from pet_calc.geometry.cell import volume
from pet_calc.models import Results
from pet_calc.models.derivatives import sum_per_system
from pet_calc.models.pet import PET
from pet_calc.models.pet.direct import direct_forces, direct_stress
from pet_calc.training.potentials.config import HuberConfig, LossConfig
from pet_calc.training.potentials.data import Batch


@dataclass(frozen=True)
class LabelCounts:
    """How many labels the averages of a loss run over.

    They are those of a whole step. A step whose frames come in several batches, one after the
    other or on several processes, then has the sum of the losses of its batches.

    Attributes
    ----------
    energy, forces, stress, rise : int
        Energies and their lower bounds, force components, stress components and bounds on the
        rise; at least 1.
    """

    energy: int
    forces: int
    stress: int
    rise: int = 1

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> LabelCounts:
        """Of the labels that are present in some batches."""
        found = [
            [
                present(b.energy) + present(b.floor), present(b.forces), present(b.stress),
                0 if b.rise is None else present(b.rise.least),
            ]
            for b in batches
        ]  # fmt: skip
        return cls(*(max(1, sum(column)) for column in zip(*found, strict=True)))


def present(labels: Tensor) -> int:
    """How many labels are not NaN."""
    return int(torch.isfinite(labels).sum())


def loss(
    results: Results,
    batch: Batch,
    weights: LossConfig,
    counts: LabelCounts | None = None,
    huber: HuberConfig | None = None,
) -> Tensor:
    r"""Weighted loss of a batch.

    .. math:: L = w_E \langle h(\Delta E / N) \rangle + w_F \langle h(\Delta F) \rangle
                + w_\sigma \langle h(\Delta\sigma) \rangle + w_R \langle h(R / N) \rangle

    with averages over the frames, force components and stress components that have labels;
    eV, Å units. R is by how much a rise of the energy is below its bound, else 0. Of energies that
    have a lower bound for a label ΔE is by how much they are below it, else 0. h is the square of
    the error, or of `penalties`. Labels that are absent (NaN in the batch) do not contribute.

    Parameters
    ----------
    results : Results
    batch : Batch
    weights : LossConfig
    counts : LabelCounts, optional
        What the averages are over; by default the labels of the batch.
    huber : HuberConfig, optional
        Errors from which on h is linear.
    """
    n = counts or LabelCounts.of([batch])
    limits = huber or HuberConfig()
    total = results.energy.new_zeros(())
    if weights.energy > 0:
        error = (results.energy - batch.energy) / batch.n_atoms
        below = (batch.floor - results.energy).clamp(min=0.0) / batch.n_atoms
        penalty = penalties(error, batch.energy, limits.energy)
        penalty = penalty + penalties(below, batch.floor, limits.energy)
        total = total + weights.energy * penalty / n.energy
    if weights.forces > 0 and results.forces is not None:
        total = total + weights.forces * forces_term(results.forces, batch, limits) / n.forces
    if weights.stress > 0 and results.stress is not None:
        total = total + weights.stress * stress_term(results.stress, batch, limits) / n.stress
    if weights.rise > 0 and batch.rise is not None:
        total = total + weights.rise * rise_term(results, batch, limits) / n.rise
    return total


def rise_term(results: Results, batch: Batch, limits: HuberConfig) -> Tensor:
    """Sum of the penalties, per atom, of energies that rise less than they must."""
    assert batch.rise is not None
    short = (batch.rise.least - rises(results, batch)).clamp(min=0.0) / batch.n_atoms
    return penalties(short, batch.rise.least, limits.energy)


def rises(results: Results, batch: Batch) -> Tensor:
    """Derivatives of the energies (n_systems,) in eV along the directions of `batch.rise`.

    Zero for systems without one, of which molecules have no stress (NaN).
    """
    assert batch.rise is not None
    assert results.forces is not None
    assert results.stress is not None
    known = torch.isfinite(batch.rise.least)[:, None]
    stress = torch.where(known, results.stress, torch.zeros_like(results.stress))
    system = batch.system
    work = -sum_per_system((results.forces * batch.rise.displacement).sum(-1), system)
    # a shear has two components in the matrix
    twice = batch.rise.strain.new_tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    return work + volume(system.cell) * (stress * batch.rise.strain * twice).sum(-1)


def direct_loss(
    model: PET,
    batch: Batch,
    weights: LossConfig,
    counts: LabelCounts,
    huber: HuberConfig | None = None,
) -> Tensor:
    """Loss of the heads that predict forces and stress directly, with the same weights.

    They share the network with the energy, but not the derivatives: a second forward pass.
    """
    limits = huber or HuberConfig()
    system = batch.system
    vectors = edge_vectors(system, batch.edges).to(model.dtype)
    features = model.features(system, batch.edges, vectors)
    total = batch.energy.new_zeros(())
    if model.config.direct_forces and weights.forces > 0:
        forces = direct_forces(model, features, system)
        total = total + weights.forces * forces_term(forces, batch, limits) / counts.forces
    if model.config.direct_stress and weights.stress > 0:
        stress = direct_stress(model, features, system)
        total = total + weights.stress * stress_term(stress, batch, limits) / counts.stress
    return total


def forces_term(forces: Tensor, batch: Batch, limits: HuberConfig) -> Tensor:
    """Sum of the penalties of forces (n_atoms, 3)."""
    return penalties(forces - batch.forces, batch.forces, limits.forces)


def stress_term(stress: Tensor, batch: Batch, limits: HuberConfig) -> Tensor:
    """Sum of the penalties of stresses (n_systems, 6)."""
    return penalties(stress - batch.stress, batch.stress, limits.stress)


def penalties(error: Tensor, label: Tensor, delta: float | None = None) -> Tensor:
    r"""Sum of the squared, or Huber, errors where the label is not NaN.

    .. math:: h(e) = |e|^2 \text{ for } |e| \le \delta, \text{ else } 2 \delta |e| - \delta^2

    with the length of each row of a matrix for its absolute value, so that the loss of forces
    does not depend on the orientation of the axes.

    Parameters
    ----------
    error, label : Tensor (n,) or (n, k)
    delta : float, optional
        Without it the square throughout.
    """
    if delta is None:
        return squares(error, label)
    known = known_errors(error, label).square()
    norm2 = known if known.ndim == 1 else known.sum(-1)
    # the clamp keeps the infinite derivative of the root at 0 out of the gradient
    linear = 2 * delta * norm2.clamp(min=delta**2).sqrt() - delta**2
    return torch.where(norm2 <= delta**2, norm2, linear).sum()


def squares(error: Tensor, label: Tensor) -> Tensor:
    """Sum of the squares where the label is not NaN."""
    return known_errors(error, label).square().sum()


def known_errors(error: Tensor, label: Tensor) -> Tensor:
    """The errors, 0 where the label is NaN."""
    # the double where keeps NaN labels out of the gradient
    return torch.where(torch.isfinite(label), error, torch.zeros_like(error))
