"""The gradients of the edge embedding, as functions that can be differentiated again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pet_calc.kernels.cutoff_functions import bump_slope
from pet_calc.kernels.edge_embedding.reference import TINY, Encoding, edge_geometry


def weight_slope(distances: Tensor, cutoff: Tensor, encoding: Encoding) -> Tensor:
    """Derivative of the cutoff weight by the cutoff, which is minus that by the distance."""
    if encoding.smooth:
        return bump_slope(distances, cutoff, encoding.width)
    s = ((distances - (cutoff - encoding.width)) / encoding.width).clamp(0.0, 1.0)
    return 0.5 * math.pi / encoding.width * torch.sin(math.pi * s)


def gradients(
    vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
    table: Tensor, matrix: Tensor, encoding: Encoding, grad: Tensor, grad_weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients on vectors, cutoffs, table and matrix.

    Parameters
    ----------
    vectors, mask, species, cutoff, centers, table, matrix, encoding
        As of the reference.
    grad : Tensor, shape (n, d)
        Gradient on `hidden`.
    grad_weight : Tensor, shape (n,)
        Gradient on `weight`.
    """
    there = mask[:, None]
    distances = (vectors.square().sum(-1) + TINY).sqrt()
    r = distances[:, None]
    geometry = edge_geometry(vectors, distances, centers, encoding).masked_fill(~there, 0.0)
    g = (grad @ matrix.T).masked_fill(~there, 0.0)
    fall = grad_weight.masked_fill(~mask, 0.0) * weight_slope(distances, cutoff, encoding)
    d_r = g[:, 3] - fall
    d_vectors = g[:, :3]
    if encoding.radial:
        unit = g[:, 4:7]
        d_r = d_r - (unit * vectors).sum(1) / distances.square()
        steps = (r - centers) / encoding.spacing**2
        d_r = d_r - (g[:, 7:] * geometry[:, 7:] * steps).sum(1)
        d_vectors = d_vectors + unit / r
    d_vectors = d_vectors + d_r[:, None] * vectors / r
    d_table = torch.zeros_like(table).index_add(0, species, grad)
    return d_vectors, fall, d_table, geometry.T @ grad
