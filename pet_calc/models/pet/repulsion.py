"""A repulsive floor where a potential has no data: atoms closer than any pair it was trained on."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from pet_calc.geometry import Edges
from pet_calc.kernels.cutoff_functions import bump

#: Energy in eV of a pair at its onset distance if it were not switched off there, unless fitted.
STRENGTH: Final = 1.0
#: Share of the onset distance over which the repulsion is switched on.
WIDTH: Final = 0.3


class ShortRangeRepulsion(nn.Module):
    r"""Pair repulsion below an onset distance of each pair of elements.

    .. math:: E_i = \frac12 \sum_j \epsilon \left(\frac{R}{r_{ij}}\right)^8 f(r_{ij}; R, w R),
       \qquad R = R_{Z_i Z_j},\ \epsilon = \epsilon_{Z_i Z_j},\ w = 0.3

    with the bump cutoff f (`pet_calc.kernels.cutoff_functions.bump`), so that the energy is
    infinitely smooth and exactly zero for r >= R. With R the shortest distance in the training data
    it changes no training error; it only keeps a network from falling into a hole where it
    extrapolates: a pair at 0.85 R costs 1.8 eV, one at 0.7 R 17 eV with ε = 1 eV. Where the network
    attracts more strongly than that, ε is raised at the end of a training
    (`pet_calc.models.dimers`).

    Parameters
    ----------
    n_species : int
        Number of elements.

    Attributes
    ----------
    onset : Tensor, shape (n_species, n_species), float64
        R in Å, symmetric; 0 for no repulsion.
    strength : Tensor, shape (n_species, n_species), float64
        ε in eV, symmetric.
    """

    onset: Tensor
    strength: Tensor

    def __init__(self, n_species: int) -> None:
        super().__init__()
        shape = (n_species, n_species)
        self.register_buffer("onset", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("strength", torch.full(shape, STRENGTH, dtype=torch.float64))

    def forward(self, species: Tensor, edges: Edges, distances: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
            Index into the model's elements.
        edges : Edges
        distances : Tensor, shape (n_edges,)
            In Å.
        """
        i, j = edges.edge_index
        onset = self.onset[species[i], species[j]]
        strength = self.strength[species[i], species[j]]
        # pairs beyond their onset are moved onto it, where the energy and all derivatives vanish
        r = distances.double()
        inside = r < onset
        onset = torch.where(inside, onset, torch.ones_like(onset))
        r = torch.where(inside, r, torch.ones_like(r))
        pair = 0.5 * strength * (onset / r) ** 8 * bump(r / onset, 1.0, WIDTH)
        zero = torch.zeros(len(species), dtype=torch.float64, device=r.device)
        return zero.index_add(0, i, pair)
