r"""Several models of one potential: their mean, and their spread as its uncertainty.

With the results x_k of M models, trained for instance from different initial weights, the
prediction is their mean and its uncertainty the sample standard deviation,

.. math:: \sigma^2 = \frac{1}{M - 1} \sum_k (x_k - \bar x)^2

[Lakshminarayanan et al., NeurIPS 2017, arXiv:1612.01474]. For forces and stress it is taken
component by component.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models.derivatives import Results, evaluate
from pet_calc.models.interface import EnergyModel

#: How one model is evaluated: `pet_calc.models.evaluate`, or a function like it.
Evaluation = Callable[[EnergyModel, System, Edges], Results]


@dataclass(frozen=True, eq=False)
class Uncertainties:
    """Standard deviations and the members that they come from, in float64.

    Attributes
    ----------
    energy_uncertainty : Tensor, shape (n_systems,)
        Standard deviation of each system's energy in eV.
    energies_uncertainty : Tensor, shape (n_atoms,)
        Of each atom's energy in eV; they do not add up.
    energy_ensemble : Tensor, shape (n_systems, n_members)
        Energies of the members in eV; their mean is the model's energy.
    energies_ensemble : Tensor, shape (n_atoms, n_members)
        The same per atom.
    forces_ensemble : Tensor or None, shape (n_members, n_atoms, 3)
        Forces of the members in eV/Å.
    forces_uncertainty : Tensor or None, shape (n_atoms, 3)
        Their standard deviation in eV/Å, by component.
    stress_ensemble : Tensor or None, shape (n_members, n_systems, 6)
        Stresses of the members in eV/Å³; NaN where the stress is not defined.
    stress_uncertainty : Tensor or None, shape (n_systems, 6)
        Their standard deviation in eV/Å³, by component.
    """

    energy_uncertainty: Tensor
    energies_uncertainty: Tensor
    energy_ensemble: Tensor
    energies_ensemble: Tensor
    forces_ensemble: Tensor | None = None
    forces_uncertainty: Tensor | None = None
    stress_ensemble: Tensor | None = None
    stress_uncertainty: Tensor | None = None


@dataclass(frozen=True, eq=False)
class CommitteeResults(Results):
    """Mean results of a committee, with their spread.

    Attributes
    ----------
    uncertainties : Uncertainties
    """

    uncertainties: Uncertainties


class Committee:
    """Several models as one `EnergyModel`, whose energy is their mean.

    Parameters
    ----------
    members : sequence of EnergyModel
        At least two, of one dtype. The committee covers the elements that all of them cover, up to
        the longest of their cutoffs; each member sees its own neighbors only.
    """

    def __init__(self, members: Sequence[EnergyModel]) -> None:
        self.members = tuple(members)
        if len(self.members) < 2:
            raise ValueError(f"a committee needs at least two models, got {len(self.members)}")
        if len({m.dtype for m in self.members}) > 1:
            raise ValueError(
                f"the models of a committee must have one dtype, got "
                f"{sorted({str(m.dtype) for m in self.members})}"
            )
        if not self.atomic_numbers:
            raise ValueError(
                f"the models of a committee must have an element in common, got "
                f"{[list(m.atomic_numbers) for m in self.members]}"
            )

    @property
    def cutoff(self) -> float:
        """Longest cutoff of the members in Å."""
        return max(m.cutoff for m in self.members)

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements that all members cover, ascending."""
        return tuple(sorted(set.intersection(*(set(m.atomic_numbers) for m in self.members))))

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the members."""
        return self.members[0].dtype

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Mean per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        distances2 = vectors.square().sum(-1)
        found = []
        for member in self.members:
            if member.cutoff < self.cutoff:
                keep = distances2 < member.cutoff**2
                found.append(member.energies(numbers, edges.select(keep), vectors[keep]))
            else:
                found.append(member.energies(numbers, edges, vectors))
        return torch.stack(found).mean(0)


def evaluate_committee(
    committee: Committee, system: System, edges: Edges, evaluation: Evaluation = evaluate
) -> CommitteeResults:
    """Mean and spread of the members' results; one member is in memory at a time.

    Parameters
    ----------
    committee : Committee
    system : System
    edges : Edges
        Neighbor list of `system` at ``committee.cutoff``.
    evaluation : callable
        How each member is evaluated; must give forces and stress.
    """
    distances2 = edge_vectors(system, edges).square().sum(-1)
    results = []
    for member in committee.members:
        seen = edges
        if member.cutoff < committee.cutoff:
            seen = edges.select(distances2 < member.cutoff**2)
        results.append(evaluation(member, system, seen))
    forces = torch.stack([r.forces for r in results if r.forces is not None])
    stress = torch.stack([r.stress for r in results if r.stress is not None])
    energy = torch.stack([r.energy for r in results], dim=1)  # (n_systems, n_members)
    energies = torch.stack([r.energies for r in results], dim=1)
    return CommitteeResults(
        energy=energy.mean(1),
        energies=energies.mean(1),
        forces=forces.mean(0),
        stress=stress.mean(0),
        uncertainties=Uncertainties(
            energy_uncertainty=energy.std(1),
            energies_uncertainty=energies.std(1),
            energy_ensemble=energy,
            energies_ensemble=energies,
            forces_ensemble=forces,
            forces_uncertainty=forces.std(0),
            stress_ensemble=stress,
            stress_uncertainty=stress.std(0),
        ),
    )
