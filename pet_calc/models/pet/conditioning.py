"""Total charge and spin multiplicity of a system as input of PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pet_calc.geometry import Edges
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.derived import DerivedPET

if TYPE_CHECKING:
    from pet_calc.models.pet.model import PET


@dataclass(frozen=True, eq=False)
class Conditions:
    """Charge and spin of the system that each atom belongs to.

    Attributes
    ----------
    charge : Tensor, shape (n_atoms,), int64
        Total charge of the atom's system in elementary charges.
    spin_multiplicity : Tensor, shape (n_atoms,), int64
        2S + 1 of the atom's system.
    """

    charge: Tensor
    spin_multiplicity: Tensor

    @classmethod
    def uniform(cls, n_atoms: int, charge: int = 0, spin_multiplicity: int = 1) -> Conditions:
        """The same charge and spin for all atoms; by default a neutral singlet."""
        return cls(
            charge=torch.full((n_atoms,), charge, dtype=torch.int64),
            spin_multiplicity=torch.full((n_atoms,), spin_multiplicity, dtype=torch.int64),
        )

    def of(self, atoms: Tensor) -> Conditions:
        """Those of some atoms, given by their indices."""
        index = atoms.to(self.charge.device)
        return Conditions(self.charge[index], self.spin_multiplicity[index])

    @classmethod
    def concatenate(cls, parts: Sequence[Conditions | None]) -> Conditions | None:
        """Conditions of a batch from those of its systems; None if they have none."""
        given = [p for p in parts if p is not None]
        if not given:
            return None
        if len(given) < len(parts):
            raise ValueError("either all systems of a batch have conditions or none")
        return cls(
            charge=torch.cat([p.charge for p in given]),
            spin_multiplicity=torch.cat([p.spin_multiplicity for p in given]),
        )


class SystemConditioning(nn.Module):
    """Embeds charge and spin, and maps both to what is added to node features after each layer.

    The last linear map starts at zero, so that an untrained conditioning changes nothing.
    """

    def __init__(self, config: PETConfig) -> None:
        super().__init__()
        d = config.d_node
        self.max_charge = config.max_charge
        self.max_spin_multiplicity = config.max_spin_multiplicity
        self.charge_embedding = nn.Embedding(2 * config.max_charge + 1, d)
        self.spin_multiplicity_embedding = nn.Embedding(config.max_spin_multiplicity, d)
        gate = nn.Linear(d, d)
        nn.init.zeros_(gate.weight)
        nn.init.zeros_(gate.bias)
        self.project = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), gate)

    def forward(self, conditions: Conditions | None, n_atoms: int) -> Tensor:
        """What is added to the node features, (n_atoms, d_node); None is a neutral singlet."""
        given = Conditions.uniform(n_atoms) if conditions is None else conditions
        device = self.charge_embedding.weight.device
        charge, spin = given.charge.to(device), given.spin_multiplicity.to(device)
        if bool((charge.abs() > self.max_charge).any()):
            raise ValueError(
                f"`charge` must lie between -{self.max_charge} and {self.max_charge} for this "
                f"model, got {sorted(set(charge.tolist()))}"
            )
        if bool(((spin < 1) | (spin > self.max_spin_multiplicity)).any()):
            raise ValueError(
                f"`spin_multiplicity` must lie between 1 and {self.max_spin_multiplicity} for "
                f"this model, got {sorted(set(spin.tolist()))}"
            )
        embedded = torch.cat(
            [
                self.charge_embedding(charge + self.max_charge),
                self.spin_multiplicity_embedding(spin - 1),
            ],
            dim=-1,
        )
        return self.project(embedded)


class ConditionedPET(DerivedPET):
    """A PET with `system_conditioning` at given charges and spins, as an `EnergyModel`.

    Parameters
    ----------
    model : PET
    conditions : Conditions
        Of each atom of the systems that will be evaluated.
    """

    def __init__(self, model: PET, conditions: Conditions) -> None:
        if not model.config.system_conditioning:
            raise ValueError(
                "`model` must have been made with system_conditioning=True: this one knows neither "
                "charge nor spin"
            )
        super().__init__(model)
        self.conditions = conditions

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        return self.model.energies_under(self.conditions, numbers, edges, vectors)
