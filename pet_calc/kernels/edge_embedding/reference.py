"""Reference implementation of the edge embedding; it defines the operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pet_calc.geometry import gaussians
from pet_calc.kernels.cutoff_functions import bump, cosine

# keeps the gradient of |r| defined; of no effect within 1e-15
TINY: Final = 1e-15


@dataclass(frozen=True)
class Encoding:
    """Constants of an edge's geometry and weight.

    Attributes
    ----------
    radial : bool
        The geometry has the unit vector and Gaussians of the distance beside vector and distance.
    spacing : float
        Width of the Gaussians in Å.
    width : float
        Width in Å over which the weight falls.
    smooth : bool
        The weight is the infinitely smooth bump, else a cosine.
    """

    radial: bool
    spacing: float
    width: float
    smooth: bool


def edge_geometry(
    vectors: Tensor, distances: Tensor, centers: Tensor, encoding: Encoding
) -> Tensor:
    r"""Geometry of edges as a network sees it: (r, |r|), with `radial` also r / |r| and Gaussians.

    .. math:: e^{-(|r| - c_k)^2 / 2 s^2}

    Parameters
    ----------
    vectors : Tensor, shape (n, 3)
        r in Å.
    distances : Tensor, shape (n,)
        |r| in Å.
    centers : Tensor, shape (n_radial,)
        c in Å; not used without `radial`.
    encoding : Encoding

    Returns
    -------
    Tensor, shape (n, 4) or (n, 7 + n_radial)
    """
    r = distances[:, None]
    if not encoding.radial:
        return torch.cat([vectors, r], dim=1)
    radial = gaussians(distances, centers, 0.5 / encoding.spacing**2)
    return torch.cat([vectors, r, vectors / r, radial], dim=1)


def edge_embedding(
    vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
    table: Tensor, matrix: Tensor, encoding: Encoding,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""Linear map of the geometry g of each edge plus a row of a table, and cutoff weight.

    .. math:: h_e = t_{Z_e} + M^T g(r_e), \qquad w_e = f(|r_e|; R_e)

    Parameters
    ----------
    vectors : Tensor, shape (n, 3)
        In Å.
    mask : Tensor, shape (n,), bool
        False on padding, whose g and w are zero.
    species : Tensor, shape (n,), int64
        Row of the table for each edge.
    cutoff : Tensor, shape (n,)
        R in Å.
    centers : Tensor, shape (n_radial,)
        See `edge_geometry`.
    table : Tensor, shape (n_species, d)
        t.
    matrix : Tensor, shape (n_geometry, d)
        M.
    encoding : Encoding

    Returns
    -------
    hidden : Tensor, shape (n, d)
    weight : Tensor, shape (n,)
    """
    distances = (vectors.square().sum(-1) + TINY).sqrt()
    geometry = edge_geometry(vectors, distances, centers, encoding)
    geometry = geometry.masked_fill(~mask[:, None], 0.0)
    taper = bump if encoding.smooth else cosine
    weight = taper(distances, cutoff, encoding.width).masked_fill(~mask, 0.0)
    return torch.addmm(table[species], geometry, matrix), weight
