r"""Several models of one potential: their mean, and their spread as its uncertainty.

With the results x_k of M models, trained for instance from different initial weights, the
prediction is their mean and its uncertainty the sample standard deviation,

.. math:: \sigma^2 = \frac{1}{M - 1} \sum_k (x_k - \bar x)^2

[Lakshminarayanan et al., NeurIPS 2017, arXiv:1612.01474]. For forces and stress it is taken
component by component.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models.derivatives import evaluate
from pet_calc.models.interface import DerivedModel, EnergyModel, Results, Uncertainties


class Committee(DerivedModel):
    """Several models as one, whose results are their mean, with their spread.

    Parameters
    ----------
    members : sequence of EnergyModel
        At least two, of one dtype. The committee covers the elements that all of them cover, up to
        the longest of their cutoffs; each member is given the edges within its own.
    """

    def __init__(self, members: Sequence[EnergyModel]) -> None:
        self.members = tuple(members)
        if len(self.members) < 2:
            raise ValueError(f"a committee needs at least two models, got {len(self.members)}")
        super().__init__(self.members[0])
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

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Mean per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        distances2 = vectors.square().sum(-1)
        found = []
        for member in self.members:
            if member.cutoff < self.cutoff:
                keep = distances2 < member.cutoff**2
                found.append(member.energies(system, edges.select(keep), vectors[keep]))
            else:
                found.append(member.energies(system, edges, vectors))
        return torch.stack(found).mean(0)

    def evaluate(
        self, system: System, edges: Edges, *, forces: bool = True, stress: bool = True
    ) -> Results:
        """Mean and spread of the members' results; one member is in memory at a time."""
        distances2 = edge_vectors(system, edges).square().sum(-1)
        results = []
        for member in self.members:
            within = edges
            if member.cutoff < self.cutoff:
                within = edges.select(distances2 < member.cutoff**2)
            results.append(evaluate(member, system, within, forces=forces, stress=stress))
        energy = torch.stack([r.energy for r in results], dim=1)  # (n_systems, n_members)
        energies = torch.stack([r.energies for r in results], dim=1)
        force = stacked([r.forces for r in results])
        pressure = stacked([r.stress for r in results])
        return Results(
            energy=energy.mean(1),
            energies=energies.mean(1),
            forces=None if force is None else force.mean(0),
            stress=None if pressure is None else pressure.mean(0),
            uncertainties=Uncertainties.of_members(
                energy,
                energies,
                force,
                pressure,
                energy_uncertainty=energy.std(1),
                energies_uncertainty=energies.std(1),
            ),
        )


def stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    """The members' values along a new first axis; None if they have none."""
    given = [value for value in values if value is not None]
    return torch.stack(given) if given else None
