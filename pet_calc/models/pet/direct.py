"""Forces and stress that heads of PET predict directly, not as derivatives of the energy.

They cost less than derivatives, but no energy is conserved along a trajectory that follows them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.geometry.cell import voigt_from_matrix, volume
from pet_calc.models.derivatives import evaluate, results_of, sum_per_system
from pet_calc.models.interface import DerivedModel, Results
from pet_calc.models.pet.model import PET
from pet_calc.models.pet.network import TokenFeatures


class DirectHeads(DerivedModel):
    """A PET whose forces or stress come from heads of their own.

    The mean direct force of each system is subtracted, so that the net force is zero.

    Parameters
    ----------
    model : PET
        With the heads that are asked for.
    forces, stress : bool
        Which of the two comes from a direct head; the other one is a derivative of the energy.
        With both, no gradient is taken at all.

    Raises
    ------
    ValueError
        If the model lacks the head.
    """

    def __init__(self, model: PET, *, forces: bool = True, stress: bool = True) -> None:
        for wanted, head in ((forces, "direct_forces"), (stress, "direct_stress")):
            if wanted:
                require_head(model, head)
        super().__init__(model)
        self.pet = model
        self.direct_forces, self.direct_stress = forces, stress

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        return self.pet.energies(system, edges, vectors)

    def evaluate(
        self, system: System, edges: Edges, *, forces: bool = True, stress: bool = True
    ) -> Results:
        """As `pet_calc.models.evaluate`; the stress is NaN where it is not defined."""
        model = self.pet
        by_head = (forces and self.direct_forces, stress and self.direct_stress)
        by_energy = (forces and not self.direct_forces, stress and not self.direct_stress)
        with torch.no_grad():
            vectors = edge_vectors(system, edges).to(model.dtype)
            features = model.features(system, edges, vectors)
        if any(by_energy):
            results = evaluate(model, system, edges, forces=by_energy[0], stress=by_energy[1])
        else:
            with torch.no_grad():
                energies = model.read_out(system, features)
                energies = energies + model.pair_energies(features.species, edges, vectors)
            results = results_of(energies, system)
        with torch.no_grad():
            if by_head[0]:
                results = replace(results, forces=direct_forces(model, features, system))
            if by_head[1]:
                results = replace(results, stress=direct_stress(model, features, system))
        return results


def require_head(model: PET, name: str) -> None:
    """Raise `ValueError` if the model lacks the head "direct_forces" or "direct_stress"."""
    if not getattr(model.config, name):
        raise ValueError(
            f"`{name.removeprefix('direct_')}` cannot be direct: this PET model has no head "
            f"for it; use the derivatives of the energy instead"
        )


def direct_forces(model: PET, features: TokenFeatures, system: System) -> Tensor:
    """Prediction of the head for forces, (n_atoms, 3) in eV/Å, without net force."""
    found = model.predict("direct_forces", features).double()
    return without_net_force(model.direct_force_scale[features.species][:, None] * found, system)


def direct_stress(model: PET, features: TokenFeatures, system: System) -> Tensor:
    """Prediction of the head for the stress, (n_systems, 6) in eV/Å³; NaN where undefined."""
    matrix = model.predict("direct_stress", features).double().view(-1, 3, 3)
    total = model.direct_stress_scale * sum_per_system(matrix, system)
    v = volume(system.cell)
    defined = system.pbc.all(dim=1) & (v > 0)
    # 1 rather than NaN below the fraction, whose gradient would be NaN too
    voigt = voigt_from_matrix(total) / torch.where(defined, v, torch.ones_like(v))[:, None]
    return torch.where(defined[:, None], voigt, torch.full_like(voigt, torch.nan))


def without_net_force(forces: Tensor, system: System) -> Tensor:
    """Forces (n_atoms, 3) less the mean of their system."""
    counts = sum_per_system(torch.ones_like(forces[:, 0]), system)
    mean = sum_per_system(forces, system) / counts[:, None]
    return forces - mean[system.system_index]
