r"""Uncertainty of the energy from the last layer's features (LLPR).

With f the features that the last linear map acts on and C their covariance over the training set,

.. math:: \sigma = \alpha \sqrt{f^T C^{-1} f} = \alpha\,\lVert L^{-1} f \rVert, \qquad C = L L^T

[Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018 (2024); per atom: Chong et al., J. Chem. Theory
Comput. 19, 7932 (2023)]. An ensemble of last layers, drawn from the same distribution, carries the
uncertainty on to forces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.models.committee import stacked
from pet_calc.models.derivatives import (
    edge_variables,
    forces_from_gradient,
    gradients_of_members,
    results_of,
    stress_from_gradient,
    sum_per_system,
)
from pet_calc.models.interface import DerivedModel, Results, Uncertainties
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


class LastLayerEnsemble(DerivedModel):
    """A PET with the uncertainty model of its energy head.

    Its results are those of the PET, with uncertainties from the same forward pass.

    Parameters
    ----------
    model : PET
    llpr : LLPR
        Of the model's energy head.
    derivatives : bool
        Uncertainties of forces and stress too, by a backward pass for each member.

    Raises
    ------
    ValueError
        If derivatives are asked for and the ensemble has less than two members.
    """

    def __init__(self, model: PET, llpr: LLPR, *, derivatives: bool = False) -> None:
        if derivatives and llpr.n_members < 2:
            raise ValueError(
                f"`derivatives` need an ensemble of at least two members, got {llpr.n_members}"
            )
        super().__init__(model)
        self.pet, self.llpr, self.derivatives = model, llpr, derivatives

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        return self.pet.energies(system, edges, vectors)

    def energies_and_features(
        self, system: System, edges: Edges, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-atom energies (n_atoms,) in eV and last-layer features (n_atoms, n), float64."""
        features = self.pet.features(system, edges, vectors)
        energies = self.pet.read_out(system, features)
        energies = energies + self.pet.pair_energies(features.species, edges, vectors)
        return energies, self.pet.last_layer_features(features).double()

    def evaluate(
        self, system: System, edges: Edges, *, forces: bool = True, stress: bool = True
    ) -> Results:
        """As `pet_calc.models.evaluate`, with uncertainties."""
        exact, vectors = edge_variables(system, edges, self.dtype)
        own = forces or stress
        with torch.set_grad_enabled(own or self.derivatives):
            energies, features = self.energies_and_features(system, edges, vectors)
            members = energies[:, None] + self.llpr.deviations(features)
            differentiated = torch.cat(
                [energies[:, None][:, : int(own)], members if self.derivatives else members[:, :0]],
                dim=1,
            )
            gradients = [g.to(exact.dtype) for g in gradients_of_members(differentiated, vectors)]
        force = [forces_from_gradient(g, edges, system.n_atoms) for g in gradients]
        pressure = [stress_from_gradient(g, exact, edges, system) for g in gradients]
        results = results_of(
            energies.detach(),
            system,
            force.pop(0) if own else None,
            pressure.pop(0) if own else None,
        )
        features, members = features.detach(), members.detach()
        uncertainties = Uncertainties.of_members(
            sum_per_system(members, system),
            members,
            stacked(force),
            stacked(pressure),
            energy_uncertainty=self.llpr.sigma(sum_per_system(features, system)),
            energies_uncertainty=self.llpr.sigma(features),
        )
        return replace(results, uncertainties=uncertainties)


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
