"""What every energy model offers: per-atom energies as a function of edge vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System

if TYPE_CHECKING:
    from pet_calc.models.derivatives import Results


@runtime_checkable
class EnergyModel(Protocol):
    """A potential whose energy depends on positions and cell only through the edge vectors."""

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter; the energy is smooth across it."""

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements that the model covers, ascending."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the computation."""

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies in eV, whose sum over a system is its energy.

        Parameters
        ----------
        numbers : Tensor, shape (n_atoms,), int64
            Atomic numbers, all covered by the model.
        edges : Edges
            Sorted by center, every pair with r < cutoff.
        vectors : Tensor, shape (n_edges, 3)
            r_ij in Å, in the model's dtype.

        Returns
        -------
        Tensor, shape (n_atoms,), float64
        """


@runtime_checkable
class SystemEnergyModel(EnergyModel, Protocol):
    """A potential whose energy may depend on positions and cell beyond the edge vectors.

    Such as by a sum in reciprocal space, which knows no cutoff.
    """

    @property
    def needs_system(self) -> bool:
        """Whether it does; if not, the model is used as any other."""

    def system_energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64, differentiable by positions and cell.

        Parameters
        ----------
        system : System
            Positions and cell may carry gradients.
        edges : Edges
        vectors : Tensor, shape (n_edges, 3)
            Those of `system`, in the model's dtype.
        """


class PreparedTerms(Protocol):
    """A sum over terms that share a few intermediate tensors."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Intermediate tensors, differentiable functions of the vectors."""

    def terms(self, vectors: Tensor, tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Per-atom energies (n_atoms,) of one term after the other, as functions of both."""


@runtime_checkable
class SummedModel(EnergyModel, Protocol):
    """An energy model whose energies are a sum of terms that can be differentiated in turn."""

    def prepare(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> PreparedTerms:
        """What comes before the terms; arguments as for `EnergyModel.energies`."""

    def complete(self, results: Results) -> Results:
        """What is still to be done to the results of the terms; nothing for most models."""
