r"""Uncertainty of the energy from the last layer's features (LLPR).

With f the features that the last linear map acts on and C their covariance over the training set,

.. math:: \sigma = \alpha \sqrt{f^T C^{-1} f} = \alpha\,\lVert L^{-1} f \rVert, \qquad C = L L^T

[Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018 (2024); per atom: Chong et al., J. Chem. Theory
Comput. 19, 7932 (2023)]. An ensemble of last layers, drawn from the same distribution, carries the
uncertainty on to forces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models.committee import Uncertainties
from pet_calc.models.derivatives import member_derivatives, sum_per_system
from pet_calc.models.pet.conditioning import Conditions
from pet_calc.models.pet.derived import DerivedPET
from pet_calc.models.pet.model import PET

Calibration = Literal["absolute_residuals", "squared_residuals", "crps"]

#: How errors can set the scale of uncertainties; see `calibration_factor`.
CALIBRATIONS: Final[tuple[Calibration, ...]] = ("absolute_residuals", "squared_residuals", "crps")


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

    @property
    def n_members(self) -> int:
        """Size of the ensemble."""
        return len(self.ensemble)

    def to(self, device: torch.device | str) -> LLPR:
        """The same on another device."""
        tensors = self.to_tensors()
        return LLPR.from_tensors({name: t.to(device) for name, t in tensors.items()})

    def sigma(self, features: Tensor) -> Tensor:
        """Standard deviations (n,) in eV for features (n, n_features)."""
        whitened = torch.linalg.solve_triangular(self.cholesky, features.double().T, upper=False)
        return self.multiplier * torch.linalg.vector_norm(whitened, dim=0)

    def deviations(self, features: Tensor) -> Tensor:
        """Energies of the members less their mean, (n, n_members) in eV."""
        energies = features.double() @ self.ensemble.T
        return energies - energies.mean(1, keepdim=True)


class LastLayerEnsemble(DerivedPET):
    """A PET with the ensemble of last layers of its uncertainty model.

    Parameters
    ----------
    model : PET
    llpr : LLPR
        Of the model's energy head.
    conditions : Conditions, optional
        Charge and spin multiplicity of each atom's system.
    """

    def __init__(self, model: PET, llpr: LLPR, conditions: Conditions | None = None) -> None:
        super().__init__(model)
        self.llpr, self.conditions = llpr, conditions

    def energies_and_features(
        self, numbers: Tensor, edges: Edges, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-atom energies (n_atoms,) in eV and last-layer features (n_atoms, n), float64."""
        model = self.model
        species = model.species(numbers)
        features = model.features(species, edges, vectors, self.conditions)
        energies = model.read_out(species, features) + model.pair_energies(species, edges, vectors)
        return energies, model.last_layer_features(features).double()

    def member_energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms, n_members) in eV, float64."""
        energies, features = self.energies_and_features(numbers, edges, vectors)
        return energies[:, None] + self.llpr.deviations(features)


class EnsembleMember(LastLayerEnsemble):
    """One member of a last-layer ensemble as an `EnergyModel`.

    Parameters
    ----------
    model : PET
    llpr : LLPR
    index : int
        Of the member.
    """

    def __init__(self, model: PET, llpr: LLPR, index: int) -> None:
        super().__init__(model, llpr)
        self.index = index

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        return self.member_energies(numbers, edges, vectors)[:, self.index]


def evaluate_uncertainty(
    model: PET,
    llpr: LLPR,
    system: System,
    edges: Edges,
    *,
    derivatives: bool = False,
    conditions: Conditions | None = None,
) -> Uncertainties:
    """Uncertainties of the energy, and of forces and stress through the ensemble.

    Parameters
    ----------
    model : PET
    llpr : LLPR
        Of the model's energy head.
    system : System
    edges : Edges
        Neighbor list of `system` at ``model.cutoff``.
    derivatives : bool
        Forces and stress of every member too, which costs a backward pass for each.
    conditions : Conditions, optional
        Charge and spin multiplicity of each atom's system.
    """
    if derivatives and llpr.n_members < 2:
        raise ValueError(
            f"`derivatives` need an ensemble of at least two members, got {llpr.n_members}"
        )
    ensemble = LastLayerEnsemble(model, llpr, conditions)
    with torch.no_grad():
        vectors = edge_vectors(system, edges).to(model.dtype)
        energies, features = ensemble.energies_and_features(system.numbers, edges, vectors)
        deviations = llpr.deviations(features) if llpr.n_members else features[:, :0]
        members = energies[:, None] + deviations
    forces = stress = None
    if derivatives:
        forces, stress = member_derivatives(
            lambda v: ensemble.member_energies(system.numbers, edges, v),
            model.dtype,
            system,
            edges,
        )
    return Uncertainties(
        energy_uncertainty=llpr.sigma(sum_per_system(features, system)),
        energies_uncertainty=llpr.sigma(features),
        energy_ensemble=sum_per_system(members, system),
        energies_ensemble=members,
        forces_ensemble=forces,
        forces_uncertainty=None if forces is None else forces.std(0),
        stress_ensemble=stress,
        stress_uncertainty=None if stress is None else stress.std(0),
    )


def fit_llpr(
    features: Tensor,
    counts: Tensor,
    held_out: Tensor,
    errors: Tensor,
    *,
    calibration: Calibration = "absolute_residuals",
    members: int = 0,
    seed: int = 0,
) -> LLPR:
    r"""An uncertainty model from the features of a training set and the errors on another.

    The covariance is that of the features per atom, C = Σ f f^T / n², with the smallest
    regularization in powers of ten that makes it positive definite.

    Parameters
    ----------
    features : Tensor, shape (n_training, n_features)
        Sums of `PET.last_layer_features` over each system of the training set.
    counts : Tensor, shape (n_training,)
        Numbers of atoms in these systems.
    held_out : Tensor, shape (n_held_out, n_features)
        Sums of the features over systems that were not trained on.
    errors : Tensor, shape (n_held_out,)
        Errors of their energies in eV.
    calibration : {"absolute_residuals", "squared_residuals", "crps"}
        How the errors set α; see `calibration_factor`.
    members : int
        Size of the ensemble, drawn as α L^-T z with normal z.
    seed : int
        Of that draw.
    """
    mean = features.double() / counts.double()[:, None]
    covariance = mean.T @ mean
    scale = covariance.diagonal().mean()
    identity = torch.eye(len(covariance)).to(covariance)
    for exponent in range(-14, 1):
        cholesky, failure = torch.linalg.cholesky_ex(covariance + 10.0**exponent * scale * identity)
        if not bool(failure):
            break
    else:
        raise ValueError("`features` must be finite and not all zero to have a covariance")
    unit = LLPR(cholesky, torch.ones_like(scale), mean.new_zeros(0, mean.shape[1]))
    alpha = calibration_factor(errors, unit.sigma(held_out), calibration)
    z = torch.randn(
        len(covariance), members, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    drawn = torch.linalg.solve_triangular(cholesky.T, z.to(mean.device), upper=True)
    return LLPR(cholesky, alpha, (alpha * drawn).T)


def calibration_factor(
    errors: Tensor, sigmas: Tensor, method: Calibration = "absolute_residuals"
) -> Tensor:
    r"""The α that makes standard deviations α σ fit errors e of normal distribution.

    ======================  ===============================================================
    "absolute_residuals"    :math:`\alpha = \sqrt{\pi/2}\, \langle |e| / \sigma \rangle`; robust
    "squared_residuals"     :math:`\alpha^2 = \langle e^2 / \sigma^2 \rangle`; largest likelihood
    "crps"                  smallest mean continuous ranked probability score
    ======================  ===============================================================

    Parameters
    ----------
    errors, sigmas : Tensor, shape (n,)
        In the same unit; σ positive.
    method : str

    Returns
    -------
    Tensor, scalar, float64

    Raises
    ------
    ValueError
        For another method, and for errors that are absent, not finite or all zero.
    """
    e, sigma = errors.double(), sigmas.double()
    if method not in CALIBRATIONS:
        raise ValueError(f"`method` must be one of {list(CALIBRATIONS)}, got {method!r}")
    if len(e) == 0 or not bool(torch.isfinite(e).all()) or not bool((e != 0).any()):
        raise ValueError(
            f"`errors` must be finite and not all zero to set a scale, got {e.tolist()[:5]}"
        )
    z = e.abs() / sigma
    if method == "absolute_residuals":
        return math.sqrt(math.pi / 2) * z.mean()
    if method == "squared_residuals":
        return z.square().mean().sqrt()
    # the mean score is stationary where Σ σ (2 φ(e / α σ) - 1 / sqrt(π)) = 0, which grows with α
    low, high = (z[z > 0].min() / 4).log(), (4 * z.max()).log()
    for _ in range(80):
        middle = 0.5 * (low + high)
        density = torch.exp(-0.5 * (z / middle.exp()).square()) / math.sqrt(2 * math.pi)
        slope = (sigma * (2 * density - 1 / math.sqrt(math.pi))).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return (0.5 * (low + high)).exp()
