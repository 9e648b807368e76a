"""Cells and strain: volume, Voigt order and the stress sign, each defined here only.

Lattice vectors are the rows of a cell. Stress is in eV/Å³, tension positive, in ASE's Voigt
order xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

VOIGT_PAIRS: Final = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def volume(cell: Tensor) -> Tensor:
    """Volume |det cell| in Å³ of cells of shape (..., 3, 3); positive for left-handed cells."""
    a, b, c = cell.unbind(-2)
    # not torch.linalg.det, whose factorization makes the host wait for a GPU
    return (a * torch.linalg.cross(b, c)).sum(-1).abs()


def voigt_from_matrix(matrix: Tensor) -> Tensor:
    """Voigt components (..., 6) of the symmetric part of matrices (..., 3, 3)."""
    symmetric = 0.5 * (matrix + matrix.transpose(-1, -2))
    return torch.stack([symmetric[..., a, b] for a, b in VOIGT_PAIRS], dim=-1)


def matrix_from_voigt(voigt: Tensor) -> Tensor:
    """Symmetric matrices (..., 3, 3) from Voigt components (..., 6) without factors of two."""
    order = torch.tensor([[0, 5, 4], [5, 1, 3], [4, 3, 2]], device=voigt.device)
    return voigt[..., order]


def stress_from_virial(virial: Tensor, cell: Tensor) -> Tensor:
    r"""Stress in eV/Å³ from the strain derivative of the energy.

    .. math:: \sigma_{ab} = \frac{1}{V} \frac{\partial E}{\partial \varepsilon_{ab}}
       \qquad \text{[Knuth et al., Comput. Phys. Commun. 190, 33 (2015)]}

    Parameters
    ----------
    virial : Tensor, shape (n_systems, 3, 3)
        dE/dε in eV, where the strain ε acts on positions and cell.
    cell : Tensor, shape (n_systems, 3, 3)
        Lattice vectors as rows, in Å.

    Returns
    -------
    Tensor, shape (n_systems, 6)
        Voigt order xx, yy, zz, yz, xz, xy; tension positive, so a compressed crystal has a
        negative trace. NaN for a cell without volume.
    """
    v = volume(cell)
    known = (v > 0)[:, None]
    # NaN comes last: a quotient by it would make gradients NaN that other systems of a batch share
    stress = voigt_from_matrix(virial) / torch.where(known, v[:, None], torch.ones_like(v[:, None]))
    return torch.where(known, stress, torch.full_like(stress, torch.nan))
