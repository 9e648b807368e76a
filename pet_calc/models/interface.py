"""What every energy model offers, and what an evaluation of it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System


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

    @classmethod
    def of_members(
        cls,
        energy: Tensor,
        energies: Tensor,
        forces: Tensor | None,
        stress: Tensor | None,
        *,
        energy_uncertainty: Tensor,
        energies_uncertainty: Tensor,
    ) -> Uncertainties:
        """From the results of the members; deviations of forces and stress are theirs."""
        return cls(
            energy_uncertainty=energy_uncertainty,
            energies_uncertainty=energies_uncertainty,
            energy_ensemble=energy,
            energies_ensemble=energies,
            forces_ensemble=forces,
            forces_uncertainty=None if forces is None else forces.std(0),
            stress_ensemble=stress,
            stress_uncertainty=None if stress is None else stress.std(0),
        )


@dataclass(frozen=True, eq=False)
class Results:
    """Output of `pet_calc.models.evaluate`; what was not asked for is None.

    Attributes
    ----------
    energy : Tensor, shape (n_systems,), float64
        Potential energy in eV.
    energies : Tensor, shape (n_atoms,), float64
        Per-atom energies in eV.
    forces : Tensor or None, shape (n_atoms, 3), float64
        In eV/Å.
    stress : Tensor or None, shape (n_systems, 6), float64
        In eV/Å³, Voigt order xx, yy, zz, yz, xz, xy, tension positive. NaN for a system that is
        not periodic in three dimensions: its stress is not defined.
    uncertainties : Uncertainties or None
        Of models that have them.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None
    uncertainties: Uncertainties | None = None


@runtime_checkable
class EnergyModel(Protocol):
    """A potential: per-atom energies as a smooth function of a batch of structures."""

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter; the energy is smooth across it."""

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements that the model covers, ascending."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the computation."""

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies in eV, whose sum over a system is its energy.

        Parameters
        ----------
        system : System
            Elements, charge, spin and whatever else the model needs of its structures. A model
            may depend on positions and cell beyond the vectors, such as by a sum in reciprocal
            space; both may carry gradients.
        edges : Edges
            Sorted by center, every pair with r < cutoff.
        vectors : Tensor, shape (n_edges, 3)
            r_ij in Å, in the model's dtype; a variable of its own, apart from the positions.

        Returns
        -------
        Tensor, shape (n_atoms,), float64
        """


class DerivedModel(ABC):
    """An energy model made of another one, with a way of its own to be evaluated.

    `pet_calc.models.evaluate` calls `evaluate` of such a model: an average over orientations, a
    mean of several models, direct heads.

    Parameters
    ----------
    model : EnergyModel
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        return self.model.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.model.atomic_numbers

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the computation."""
        return self.model.dtype

    @abstractmethod
    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""

    @abstractmethod
    def evaluate(self, system: System, edges: Edges, *, forces: bool, stress: bool) -> Results:
        """Energy and its derivatives; see `pet_calc.models.evaluate`."""
