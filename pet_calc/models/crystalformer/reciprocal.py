r"""Infinitely connected attention with Gaussians summed in reciprocal space.

By Poisson's formula the Gaussian weights of all images of an atom are

.. math:: S_{ij} = \sum_n e^{-|r_{ij(n)}|^2 / 2\sigma_i^2}
   = \frac{(2\pi\sigma_i^2)^{3/2}}{V} \sum_k t(|k|)\, e^{-\sigma_i^2 k^2 / 2} \cos(k \cdot r_{ij})

with t = 1. The bump t here, from 1 to 0 below the largest wave number, lets a wave vector leave
smoothly as the cell is strained. The sum runs over a sphere of wave vectors, which is the same for
every choice of the cell. Weights enter the attention as factors, not as logarithms, so that no
floor is needed where the truncated sum is 0 within its rounding.

Without periodicity there is one image and the sum is its Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import System, volume
from pet_calc.kernels.cutoff_functions import bump

_TINY = 1e-15


@dataclass(frozen=True, eq=False)
class Waves:
    """What a system's reciprocal-space attention needs of its geometry.

    Attributes
    ----------
    rows : Tensor, shape (n,), int64
        Where the atoms of the system are among the features.
    squared_number : Tensor, shape (n_waves,)
        k² in 1/Å²; for a system without periodicity, r² in Å² of shape (n, n).
    amplitude : Tensor, shape (n_waves,)
        t(|k|) times the number of wave vectors ±k that the entry stands for.
    cosines, sines : Tensor, shape (n, n_waves)
        Of k · r_i.
    volume : Tensor, scalar
        In Å³; 0 without periodicity.
    floor : float or None
        The published lower bound of the sum.
    """

    rows: Tensor
    squared_number: Tensor
    amplitude: Tensor
    cosines: Tensor
    sines: Tensor
    volume: Tensor
    floor: float | None

    def weights(self, variance: Tensor) -> Tensor:
        """S_ij for each head, shape (n, heads, n).

        Parameters
        ----------
        variance : Tensor, shape (n, heads)
            σ_i² in Å².
        """
        if self.amplitude.numel() == 0:
            return torch.exp(-0.5 * self.squared_number[:, None, :] / variance[:, :, None])
        n, heads = variance.shape
        decay = self.amplitude * torch.exp(-0.5 * variance[:, :, None] * self.squared_number)
        left = torch.cat([decay * self.cosines[:, None], decay * self.sines[:, None]], dim=-1)
        right = torch.cat([self.cosines, self.sines], dim=-1)
        sums = (left.reshape(n * heads, -1) @ right.T).view(n, heads, n)
        if self.floor is not None:
            sums = sums.clamp_min(self.floor)
        return (2 * math.pi * variance[:, :, None]) ** 1.5 / self.volume * sums


def smooth_waves(system: System, rows: Tensor, cutoff: float, width: float) -> list[Waves]:
    """All wave vectors with k < cutoff of every system, in float64.

    Parameters
    ----------
    system : System
    rows : Tensor, shape (n_atoms,)
        Where each atom is among the features.
    cutoff, width : float
        In 1/Å.

    Raises
    ------
    InvalidStructureError
        For a system that is periodic in one or two dimensions.
    """
    found = []
    for s, atoms in enumerate(atoms_of(system)):
        x = system.positions[atoms]
        if not bool(system.pbc[s].any()):
            found.append(without_periodicity(x, rows[atoms]))
            continue
        if not bool(system.pbc[s].all()):
            raise InvalidStructureError(
                f"attention in reciprocal space needs periodicity in three dimensions or none, "
                f"but system {s} has pbc={system.pbc[s].tolist()}; use a potential whose heads are "
                f"all in real space"
            )
        cell = system.cell[s]
        reach = (cutoff / (2 * math.pi) * cell.detach().norm(dim=1)).floor().long().tolist()
        m = half_grid([int(n) for n in reach], cell.device)
        inside = (m.to(cell.dtype) @ reciprocal(cell.detach())).norm(dim=1) < cutoff
        k = m[inside].to(cell.dtype) @ reciprocal(cell)
        amplitude = pairs_of(m[inside]).to(cell) * bump(
            (k.square().sum(-1) + _TINY).sqrt(), cutoff, width
        )
        found.append(waves(x, rows[atoms], k, amplitude, cell, None))
    return found


def box_waves(system: System, rows: Tensor, image_range: int) -> list[Waves]:
    """The published choice: a fixed box of wave vectors, no step, a floor of 1e-6."""
    found = []
    for s, atoms in enumerate(atoms_of(system)):
        cell = system.cell[s]
        m = half_grid([image_range] * 3, cell.device)
        k = m.to(cell.dtype) @ reciprocal(cell)
        amplitude = pairs_of(m).to(cell)
        found.append(waves(system.positions[atoms], rows[atoms], k, amplitude, cell, 1e-6))
    return found


def atoms_of(system: System) -> list[slice]:
    """The atoms of each system."""
    counts = torch.bincount(system.system_index, minlength=system.n_systems).cumsum(0).tolist()
    return [slice(a, b) for a, b in zip([0, *counts[:-1]], counts, strict=True)]


def reciprocal(cell: Tensor) -> Tensor:
    """Reciprocal lattice vectors as rows (3, 3) in 1/Å, 2π included."""
    return 2 * math.pi * torch.linalg.inv(cell).T


def half_grid(reach: list[int], device: torch.device) -> Tensor:
    """Integer vectors of a box, one of each pair ±m, (n, 3)."""
    m = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=device) for n in reach))
    m = m.reshape(-1, 3)
    return m[len(m) // 2 :]


def pairs_of(m: Tensor) -> Tensor:
    """1 for the zero vector, 2 for the others."""
    return 2 - (m == 0).all(dim=1).long()


def waves(
    x: Tensor, rows: Tensor, k: Tensor, amplitude: Tensor, cell: Tensor, floor: float | None
) -> Waves:
    """Waves of the vectors k (n_waves, 3) at positions x (n, 3)."""
    phase = x @ k.T
    return Waves(rows, k.square().sum(-1), amplitude, phase.cos(), phase.sin(), volume(cell), floor)


def without_periodicity(x: Tensor, rows: Tensor) -> Waves:
    """A system with one image of each atom."""
    none = x.new_zeros(0)
    square = (x[:, None] - x[None]).square().sum(-1)
    return Waves(rows, square, none, none, none, x.new_zeros(()), None)


def cast(found: list[Waves], dtype: torch.dtype) -> list[Waves]:
    """The same waves in the precision of a model."""
    return [
        Waves(
            w.rows,
            w.squared_number.to(dtype),
            w.amplitude.to(dtype),
            w.cosines.to(dtype),
            w.sines.to(dtype),
            w.volume.to(dtype),
            w.floor,
        )
        for w in found
    ]


def wave_attention(
    query: Tensor, key: Tensor, value: Tensor, variance: Tensor, found: list[Waves], scale: float
) -> Tensor:
    r"""Attention over all images of all atoms of each system.

    .. math:: y_i = \frac{\sum_j S_{ij} e^{s\,q_i \cdot k_j} v_j}
                         {\sum_j S_{ij} e^{s\,q_i \cdot k_j}}

    Parameters
    ----------
    query, key, value : Tensor, shape (n_atoms, heads, width)
    variance : Tensor, shape (n_atoms, heads)
        σ² in Å².
    found : list of Waves
    scale : float

    Returns
    -------
    Tensor, shape (n_atoms, heads, width)
    """
    out = torch.zeros_like(value)
    for w in found:
        q, k, v = (t[w.rows].transpose(0, 1) for t in (query, key, value))  # (heads, n, width)
        logits = scale * torch.bmm(q, k.transpose(1, 2))
        factor = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
        p = factor * w.weights(variance[w.rows]).transpose(0, 1)
        y = torch.bmm(p / p.sum(-1, keepdim=True), v)
        out = out.index_copy(0, w.rows, y.transpose(0, 1))
    return out
