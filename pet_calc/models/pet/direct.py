"""Forces and stress that heads of PET predict directly, not as derivatives of the energy.

They cost less than derivatives, but no energy is conserved along a trajectory that follows them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.geometry.cell import voigt_from_matrix, volume
from pet_calc.models.derivatives import Results, evaluate, sum_per_system
from pet_calc.models.pet.conditioning import ConditionedPET, Conditions
from pet_calc.models.pet.model import PET, TokenFeatures


def evaluate_direct(
    model: PET,
    system: System,
    edges: Edges,
    *,
    forces: bool = True,
    stress: bool = True,
    conditions: Conditions | None = None,
) -> Results:
    """Energy, and forces or stress from the model's direct heads.

    Parameters
    ----------
    model : PET
        With the heads that are asked for.
    system : System
    edges : Edges
        Neighbor list of `system` at ``model.cutoff``.
    forces, stress : bool
        Which of the two comes from a direct head; the other one is a derivative of the energy.
        With both, no gradient is taken at all.
    conditions : Conditions, optional
        Charge and spin multiplicity of each atom's system.

    Returns
    -------
    Results
        As from `pet_calc.models.evaluate`. The mean direct force of each system is subtracted,
        so that the net force is zero. The stress is NaN where it is not defined.

    Raises
    ------
    ValueError
        If the model lacks the head.
    """
    if forces:
        require_head(model, "direct_forces")
    if stress:
        require_head(model, "direct_stress")
    with torch.no_grad():
        species = model.species(system.numbers)
        vectors = edge_vectors(system, edges).to(model.dtype)
        features = model.features(species, edges, vectors, conditions)
    if forces and stress:
        with torch.no_grad():
            energies = model.read_out(species, features)
            energies = energies + model.pair_energies(species, edges, vectors)
        results = Results(sum_per_system(energies, system), energies, None, None)
    else:
        plain = model if conditions is None else ConditionedPET(model, conditions)
        results = evaluate(plain, system, edges, forces=not forces, stress=not stress)
    with torch.no_grad():
        if forces:
            results = replace(results, forces=direct_forces(model, features, species, system))
        if stress:
            results = replace(results, stress=direct_stress(model, features, system))
    return results


def require_head(model: PET, name: str) -> None:
    """Raise `ValueError` if the model lacks the head "direct_forces" or "direct_stress"."""
    if not getattr(model.config, name):
        raise ValueError(
            f"`{name.removeprefix('direct_')}` cannot be direct: this PET model has no head "
            f"for it; use the derivatives of the energy instead"
        )


def direct_forces(model: PET, features: TokenFeatures, species: Tensor, system: System) -> Tensor:
    """What the head for forces says, (n_atoms, 3) in eV/Å, without net force."""
    found = model.predict("direct_forces", features).double()
    return without_net_force(model.direct_force_scale[species][:, None] * found, system)


def direct_stress(model: PET, features: TokenFeatures, system: System) -> Tensor:
    """What the head for the stress says, (n_systems, 6) in eV/Å³; NaN where it is not defined."""
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
