"""The screened repulsion of nuclei after Ziegler, Biersack and Littmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from pet_calc.geometry import Edges

_COULOMB: Final = 14.399645478425668  # e² / 4πε0 in eV Å
_SCREENING: Final = ((0.02817, 0.20162), (0.28022, 0.40290), (0.50986, 0.94229), (0.18175, 3.19980))

# Å, of the elements 1 to 96 [Cordero et al., Dalton Trans. 2008, 2832]; as ASE tabulates them
_COVALENT_RADII: Final = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41,
    1.21, 1.11, 1.07, 1.05, 1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39,
    1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44,
    1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01,
    1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75,
    1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40,
    1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
)  # fmt: skip
_UNKNOWN_RADIUS: Final = 2.0


def covalent_radius(number: int) -> float:
    """Covalent radius in Å of an element; 2.0 where none is tabulated."""
    known = 0 < number <= len(_COVALENT_RADII)
    return _COVALENT_RADII[number - 1] if known else _UNKNOWN_RADIUS


class ZBL(nn.Module):
    r"""Pair repulsion that ends at the sum of two covalent radii, R.

    .. math:: E_i = \frac12 \sum_j \left[ \frac{Z_i Z_j e^2}{4\pi\epsilon_0 r}
              \phi\!\left(\frac{r}{a}\right) + \frac{A}{3} r^3 + \frac{B}{4} r^4 + C \right],
              \qquad a = \frac{0.4685\ \text{Å}}{Z_i^{0.23} + Z_j^{0.23}}

    φ is a sum of four exponentials; A, B and C let energy, force and curvature vanish at R
    [LAMMPS, pair_style zbl, with an inner cutoff of 0].

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers, in the order of the species index.

    Attributes
    ----------
    covalent_radii : Tensor, shape (n_species,), float64
        In Å.
    """

    covalent_radii: Tensor
    numbers: Tensor

    def __init__(self, elements: Sequence[int]) -> None:
        super().__init__()
        radii = torch.tensor([covalent_radius(z) for z in elements], dtype=torch.float64)
        self.register_buffer("covalent_radii", radii)
        numbers = torch.tensor(list(elements), dtype=torch.float64)
        self.register_buffer("numbers", numbers, persistent=False)

    @staticmethod
    def cutoff(elements: Sequence[int]) -> float:
        """Longest reach of the repulsion among these elements, in Å."""
        return 2.0 * max(covalent_radius(z) for z in elements)

    def forward(self, species: Tensor, edges: Edges, distances: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
            Index into the elements.
        edges : Edges
        distances : Tensor, shape (n_edges,)
            In Å.
        """
        i, j = edges.edge_index
        z_i, z_j = self.numbers[species[i]], self.numbers[species[j]]
        outer = self.covalent_radii[species[i]] + self.covalent_radii[species[j]]
        r = distances.double()
        inside = r < outer
        # pairs out of reach are moved onto R, where everything vanishes
        r = torch.where(inside, r, outer)
        charge = _COULOMB * z_i * z_j
        inverse_length = (z_i**0.23 + z_j**0.23) / 0.46850

        phi, at_outer, slope, curvature = (torch.zeros_like(r) for _ in range(4))
        for weight, decay in _SCREENING:
            rate = decay * inverse_length
            phi = phi + weight * torch.exp(-rate * r)
            term = weight * torch.exp(-rate * outer)
            at_outer = at_outer + term
            slope = slope - rate * term
            curvature = curvature + rate.square() * term
        energy = charge / r * phi
        e = charge / outer * at_outer
        de = charge / outer * (slope - at_outer / outer)
        d2e = charge / outer * (curvature - 2 * slope / outer + 2 * at_outer / outer.square())
        a = (outer * d2e - 3 * de) / outer.square()
        b = (2 * de - outer * d2e) / outer**3
        c = -e + outer * de / 2 - outer.square() * d2e / 12
        pair = energy + a / 3 * r**3 + b / 4 * r**4 + c
        pair = torch.where(inside, 0.5 * pair, torch.zeros_like(pair))
        return torch.zeros(len(species), dtype=torch.float64, device=r.device).index_add(0, i, pair)
