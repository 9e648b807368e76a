"""How far a model's energy and forces depend on the orientation of the structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.models.derivatives import evaluate
from pet_calc.models.interface import EnergyModel, Results

# constants of the super-Fibonacci spiral
_PHI, _PSI = 2.0**0.5, 1.533751168755204288118041


@dataclass(frozen=True, eq=False)
class RotationSpread:
    """Standard deviations over orientations.

    Attributes
    ----------
    energy : Tensor, shape (n_systems,)
        Of the energy, eV.
    forces : Tensor, shape (n_atoms,)
        Of each force turned back: root of the mean squared distance from its mean, eV/Å.
    """

    energy: Tensor
    forces: Tensor


def spiral_rotations(n: int) -> Tensor:
    """Evenly spread rotation matrices (n, 3, 3) that lie on no axis of a crystal, float64.

    A super-Fibonacci spiral on the sphere of unit quaternions [Alexa, CVPR 2022, 8291].
    """
    s = torch.arange(n, dtype=torch.float64) + 0.5
    r, big = (s / n).sqrt(), (1.0 - s / n).sqrt()
    a, b = 2.0 * torch.pi * s / _PHI, 2.0 * torch.pi * s / _PSI
    x, y, z, w = r * a.sin(), r * a.cos(), big * b.sin(), big * b.cos()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotation_spread(
    model: EnergyModel,
    system: System,
    edges: Edges,
    n: int = 16,
    *,
    evaluation: Callable[[EnergyModel, System, Edges], Results] = evaluate,
) -> RotationSpread:
    """Spread over `n` rotations, every second one with an inversion.

    Parameters
    ----------
    model : EnergyModel
    system : System
    edges : Edges
        Neighbor list of `system` at the model's cutoff; turning leaves it valid.
    n : int
    evaluation : callable
        How each copy is evaluated.
    """
    energies, forces = [], []
    for k, rotation in enumerate(spiral_rotations(n).to(system.positions)):
        matrix = rotation * (-1.0) ** k
        turned = replace(system, positions=system.positions @ matrix, cell=system.cell @ matrix)
        found = evaluation(model, turned, edges)
        assert found.forces is not None
        energies.append(found.energy)
        forces.append(found.forces @ matrix.T)
    energy, force = torch.stack(energies), torch.stack(forces)
    deviation = (force - force.mean(0)).square().sum(-1).mean(0).sqrt()
    return RotationSpread(energy.std(0, correction=0), deviation)
