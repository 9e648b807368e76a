"""Several levels of theory in one run: one network, and one energy head for each of them.

The heads share the features. Each has readouts, reference energies and a scale of its own, so that
data from different functionals need no common zero of energy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.geometry import Edges
from pet_calc.models.pet import PET
from pet_calc.models.pet.conditioning import Conditions
from pet_calc.models.pet.derived import DerivedPET


class LeveledPET(DerivedPET):
    """A PET whose atoms are read through the heads of their levels, as an `EnergyModel`.

    Parameters
    ----------
    model : PET
    level : Tensor, shape (n_atoms,), int64
        Index into ``config.energy_heads``, the same for all atoms of a system.
    conditions : Conditions, optional
        Charge and spin multiplicity of each atom's system.
    draw : Tensor, optional, shape (n_atoms,)
        See `pet_calc.models.pet.sampled.SampledPET`.
    """

    def __init__(
        self,
        model: PET,
        level: Tensor,
        conditions: Conditions | None = None,
        draw: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        self.level, self.conditions, self.draw = level, conditions, draw

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        model = self.model
        species = model.species(numbers)
        features = model.features(species, edges, vectors, self.conditions, self.draw)
        total = torch.zeros(len(species), dtype=torch.float64, device=vectors.device)
        for k in torch.unique(self.level).tolist():
            head = model.with_energy_head(model.config.energy_heads[k])
            total = torch.where(self.level == k, head.read_out(species, features), total)
        return total + model.pair_energies(species, edges, vectors)
