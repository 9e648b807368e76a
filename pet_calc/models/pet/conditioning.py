"""Total charge and spin multiplicity of a system as input of PET."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pet_calc.geometry import System
from pet_calc.models.pet.config import PETConfig


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

    def forward(self, system: System) -> Tensor:
        """What is added to the node features, (n_atoms, d_node)."""
        charge, spin = system.charge, system.spin_multiplicity
        embedded = torch.cat(
            [
                self.charge_embedding(charge + self.max_charge),
                self.spin_multiplicity_embedding(spin - 1),
            ],
            dim=-1,
        )
        found: Tensor = self.project(embedded)
        return found.index_select(0, system.system_index)

    def require(self, system: System) -> None:
        """Raise `ValueError` for charges or spins outside of the tables; waits for a GPU."""
        charge, spin_multiplicity = system.charge, system.spin_multiplicity
        if bool((charge.abs() > self.max_charge).any()):
            raise ValueError(
                f"`charge` must lie between -{self.max_charge} and {self.max_charge} for this "
                f"model, got {sorted(set(charge.tolist()))}"
            )
        wrong = (spin_multiplicity < 1) | (spin_multiplicity > self.max_spin_multiplicity)
        if bool(wrong.any()):
            raise ValueError(
                f"`spin_multiplicity` must lie between 1 and {self.max_spin_multiplicity} for "
                f"this model, got {sorted(set(spin_multiplicity.tolist()))}"
            )
