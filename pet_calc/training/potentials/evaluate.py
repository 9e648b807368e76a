"""Errors of a model on labeled frames, in total and per element."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from pet_calc.models import EnergyModel, evaluate
from pet_calc.training.core.parallel import ALONE, Team
from pet_calc.training.potentials.data import Batch, in_batches, random_orthogonal


@dataclass(frozen=True)
class Error:
    """Mean absolute and root-mean-square error, with the number of values behind them."""

    mae: float
    rmse: float
    count: int

    @classmethod
    def of(cls, errors: np.ndarray) -> Error:
        """Errors from an array of deviations; NaN deviations (no label) are left out."""
        e = errors[np.isfinite(errors)]
        if len(e) == 0:
            return cls(float("nan"), float("nan"), 0)
        return cls(float(np.abs(e).mean()), float(np.sqrt((e**2).mean())), len(e))

    @classmethod
    def of_sums(cls, sums: Tensor) -> Error:
        """Errors from what `error_sums` gives, added up."""
        total, squared, count = sums.tolist()
        if not count:
            return cls(float("nan"), float("nan"), 0)
        return cls(total / count, math.sqrt(squared / count), int(count))


@dataclass(frozen=True)
class Evaluation:
    """Errors on one split.

    Attributes
    ----------
    energy : Error
        Per atom, in meV/atom.
    forces : Error
        Per component, in meV/Å.
    stress : Error
        Per component, in meV/Å³.
    forces_by_element : dict
        Chemical symbol to the force error on its atoms, in meV/Å.
    """

    energy: Error
    forces: Error
    stress: Error
    forces_by_element: dict[str, Error]


def evaluate_frames(model: EnergyModel, frames: Iterable[Batch], team: Team = ALONE) -> Evaluation:
    """Errors of `model` on prepared frames (`prepare` at the model's cutoff).

    Parameters
    ----------
    model : EnergyModel
    frames : iterable of Batch
    team : Team
        Processes that share the work; each returns all errors.
    """
    elements = model.atomic_numbers
    # sums of |e| and e², and the number of labels: energy, forces, stress, forces by element
    sums = torch.zeros(3 + len(elements), 3, dtype=torch.float64)
    for group in in_batches(team.share(list(frames)) if team.size > 1 else frames):
        frame = Batch.concatenate(group)
        results = evaluate(model, frame.system, frame.edges)
        assert results.forces is not None
        assert results.stress is not None
        forces = results.forces - frame.forces
        sums[0] += error_sums((results.energy - frame.energy) / frame.n_atoms)
        sums[1] += error_sums(forces)
        sums[2] += error_sums(results.stress - frame.stress)
        for k, z in enumerate(elements):
            sums[3 + k] += error_sums(forces[frame.system.numbers == z])
    energy, force, stress, *by_element = (Error.of_sums(s) for s in team.total(sums))
    return Evaluation(
        energy=energy,
        forces=force,
        stress=stress,
        forces_by_element={
            chemical_symbols[z]: e for z, e in zip(elements, by_element, strict=True) if e.count
        },
    )


def error_sums(errors: Tensor) -> Tensor:
    """Sum of |e|, sum of e² and number of the errors that are finite, (3,), in thousandths."""
    e = 1e3 * errors[torch.isfinite(errors)].double()
    return torch.stack([e.abs().sum(), e.square().sum(), torch.tensor(float(len(e))).double()])


@dataclass(frozen=True)
class RotationError:
    """How much predictions depend on the orientation of a structure.

    Attributes
    ----------
    energy : float
        Standard deviation over orientations of the energy per atom, in meV/atom.
    forces : float
        Standard deviation over orientations of a force component, turned back, in meV/Å.
    orientations : int
        Random rotations and rotary reflections per structure.
    """

    energy: float
    forces: float
    orientations: int


def rotation_error(
    model: EnergyModel, frames: Iterable[Batch], orientations: int, seed: int = 0
) -> RotationError:
    """Root mean square over `frames` of the spread under random elements of O(3).

    Parameters
    ----------
    model : EnergyModel
    frames : iterable of Batch
        Prepared at the model's cutoff; labels are not used.
    orientations : int
        At least 2.
    seed : int
    """
    if orientations < 2:
        raise ValueError(f"a spread needs at least 2 orientations, got {orientations}")
    generator = np.random.default_rng(seed)
    energy_variance, force_variance = [], []
    for frame in frames:
        energies, forces = [], []
        for _ in range(orientations):
            matrix = random_orthogonal(generator)
            turned = frame.transformed(matrix)
            results = evaluate(model, turned.system, turned.edges, stress=False)
            assert results.forces is not None
            energies.append((results.energy / frame.n_atoms).numpy())
            forces.append((results.forces @ matrix.T).numpy())
        energy_variance.append(np.var(energies, axis=0, ddof=1).mean())
        force_variance.append(np.var(forces, axis=0, ddof=1).mean())
    return RotationError(
        energy=1e3 * float(np.sqrt(np.mean(energy_variance))),
        forces=1e3 * float(np.sqrt(np.mean(force_variance))),
        orientations=orientations,
    )
