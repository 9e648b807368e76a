r"""Lennard-Jones with a smooth cutoff: the analytic model of the contract suite."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.kernels.cutoff_functions import bump


class LennardJones(torch.nn.Module):
    r"""Lennard-Jones pairs, switched off smoothly.

    .. math:: E_i = \frac12 \sum_j 4\epsilon \left[(\sigma/r_{ij})^{12} - (\sigma/r_{ij})^6\right]
              f(r_{ij})

    with the bump cutoff f of `pet_calc.kernels.cutoff_functions.bump`.

    Parameters
    ----------
    atomic_numbers : tuple of int
        Elements that may occur; all interact alike.
    epsilon, sigma : float
        Depth in eV and diameter in Å.
    cutoff, cutoff_width : float
        In Å.
    dtype : torch.dtype
        Of the computation.
    """

    def __init__(
        self,
        atomic_numbers: tuple[int, ...],
        *,
        epsilon: float = 0.01,
        sigma: float = 2.5,
        cutoff: float = 6.0,
        cutoff_width: float = 2.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.atomic_numbers = tuple(sorted(atomic_numbers))
        self.epsilon = epsilon
        self.sigma = sigma
        self.cutoff = cutoff
        self.cutoff_width = cutoff_width
        self.dtype = dtype

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV; see `EnergyModel.energies`."""
        r = vectors.square().sum(-1).sqrt()
        x6 = (self.sigma / r) ** 6
        pair = 2.0 * self.epsilon * (x6 * x6 - x6) * bump(r, self.cutoff, self.cutoff_width)
        zero = torch.zeros(system.n_atoms, dtype=torch.float64, device=vectors.device)
        return zero.index_add(0, edges.edge_index[0], pair.to(torch.float64))
