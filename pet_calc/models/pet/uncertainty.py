r"""Uncertainty of the energy from the last layer's features (LLPR).

With f the features that the last linear map acts on and C their covariance over the training set,

.. math:: \sigma = \alpha \sqrt{f^T C^{-1} f} = \alpha\,\lVert L^{-1} f \rVert, \qquad C = L L^T

[Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018 (2024); per atom: Chong et al., J. Chem. Theory
Comput. 19, 7932 (2023)]. An ensemble of last layers, drawn from the same distribution, carries the
uncertainty on to forces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models.derivatives import evaluate, sum_per_system
from pet_calc.models.pet.derived import DerivedPET
from pet_calc.models.pet.model import PET


@dataclass(frozen=True, eq=False)
class LLPR:
    """An uncertainty model of one energy head.

    Attributes
    ----------
    cholesky : Tensor, shape (n_features, n_features), float64
        L.
    multiplier : Tensor, scalar, float64
        The calibration α in eV.
    ensemble : Tensor, shape (n_members, n_features), float64
        Last layers of an ensemble, in eV; may have no members.
    """

    cholesky: Tensor
    multiplier: Tensor
    ensemble: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """By name, for a file."""
        return {
            "cholesky": self.cholesky.contiguous(),
            "multiplier": self.multiplier.contiguous(),
            "ensemble": self.ensemble.contiguous(),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> LLPR:
        """From what `to_tensors` gave."""
        return cls(tensors["cholesky"], tensors["multiplier"], tensors["ensemble"])

    def sigma(self, features: Tensor) -> Tensor:
        """Standard deviations (n,) in eV for features (n, n_features)."""
        whitened = torch.linalg.solve_triangular(self.cholesky, features.double().T, upper=False)
        return self.multiplier * torch.linalg.vector_norm(whitened, dim=0)

    def deviations(self, features: Tensor) -> Tensor:
        """Energies of the members less their mean, (n, n_members) in eV."""
        energies = features.double() @ self.ensemble.T
        return energies - energies.mean(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Uncertainties:
    """Output of `evaluate_uncertainty`, float64.

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
        Their standard deviation in eV/Å.
    """

    energy_uncertainty: Tensor
    energies_uncertainty: Tensor
    energy_ensemble: Tensor
    energies_ensemble: Tensor
    forces_ensemble: Tensor | None
    forces_uncertainty: Tensor | None


class EnsembleMember(DerivedPET):
    """One member of a last-layer ensemble as an `EnergyModel`.

    Parameters
    ----------
    model : PET
    llpr : LLPR
    index : int
        Of the member.
    """

    def __init__(self, model: PET, llpr: LLPR, index: int) -> None:
        super().__init__(model)
        self.llpr, self.index = llpr, index

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        model = self.model
        species = model.species(numbers)
        features = model.features(species, edges, vectors)
        energies = model.read_out(species, features) + model.pair_energies(species, edges, vectors)
        deviations = self.llpr.deviations(model.last_layer_features(features))
        return energies + deviations[:, self.index]


def evaluate_uncertainty(
    model: PET, llpr: LLPR, system: System, edges: Edges, *, forces: bool = False
) -> Uncertainties:
    """Uncertainties of the energy, and of the forces through the ensemble.

    Parameters
    ----------
    model : PET
    llpr : LLPR
        Of the model's energy head.
    system : System
    edges : Edges
        Neighbour list of `system` at ``model.cutoff``.
    forces : bool
        Evaluate the forces of every member, which costs as many backward passes.
    """
    if forces and len(llpr.ensemble) < 2:
        raise ValueError(
            f"`forces` need an ensemble of at least two members, got {len(llpr.ensemble)}"
        )
    with torch.no_grad():
        species = model.species(system.numbers)
        vectors = edge_vectors(system, edges).to(model.dtype)
        features = model.features(species, edges, vectors)
        energies = model.read_out(species, features) + model.pair_energies(species, edges, vectors)
        per_atom = model.last_layer_features(features).double()
        deviations = llpr.deviations(per_atom) if len(llpr.ensemble) else per_atom[:, :0]
        energies_ensemble = energies[:, None] + deviations
    members = None
    if forces:
        found = []
        for k in range(len(llpr.ensemble)):
            results = evaluate(EnsembleMember(model, llpr, k), system, edges, stress=False)
            assert results.forces is not None
            found.append(results.forces)
        members = torch.stack(found)
    return Uncertainties(
        energy_uncertainty=llpr.sigma(sum_per_system(per_atom, system)),
        energies_uncertainty=llpr.sigma(per_atom),
        energy_ensemble=sum_per_system(energies_ensemble, system),
        energies_ensemble=energies_ensemble,
        forces_ensemble=members,
        forces_uncertainty=None if members is None else members.std(0),
    )


def fit_llpr(
    features: Tensor, counts: Tensor, errors: Tensor, *, members: int = 0, seed: int = 0
) -> LLPR:
    r"""An uncertainty model from the features of a training set and the errors on another.

    The covariance is that of the features per atom, C = Σ f f^T / n², with the smallest
    regularisation in powers of ten that makes it positive definite. The calibration makes
    the mean of (error / σ)² one.

    Parameters
    ----------
    features : Tensor, shape (n_systems, n_features)
        Sums of `PET.last_layer_features` over each system. The errors refer to the same systems.
    counts : Tensor, shape (n_systems,)
        Numbers of atoms.
    errors : Tensor, shape (n_systems,)
        Errors of the energies in eV.
    members : int
        Size of the ensemble, drawn as α L^-T z with normal z.
    seed : int
        Of that draw.
    """
    f = features.double()
    mean = f / counts.double()[:, None]
    covariance = mean.T @ mean
    scale = covariance.diagonal().mean()
    for exponent in range(-14, 1):
        regular = covariance + 10.0**exponent * scale * torch.eye(len(covariance)).to(covariance)
        cholesky, failure = torch.linalg.cholesky_ex(regular)
        if not bool(failure):
            break
    else:
        raise ValueError("`features` must be finite and not all zero to have a covariance")
    unit = LLPR(cholesky, torch.ones((), dtype=torch.float64), f.new_zeros(0, f.shape[1]))
    alpha = (errors.double() / unit.sigma(f)).square().mean().sqrt()
    z = torch.randn(
        f.shape[1], members, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    drawn = torch.linalg.solve_triangular(cholesky.T, z.to(f.device), upper=True)
    return LLPR(cholesky, alpha, (alpha * drawn).T)
