"""Reference implementation of the lattice attention; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.kernels.lattice_attention.layout import ImageLayout


def lattice_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    falloff: Tensor,
    squared_distance: Tensor,
    log_weight: Tensor,
    basis: Tensor,
    layout: ImageLayout,
    scale: float,
) -> tuple[Tensor, Tensor]:
    r"""Attention of every atom over periodic images, with Gaussian weights [arXiv:2403.11686].

    .. math::

       p_e = \frac{f_e \exp(s\,q_i \cdot k_j - a_i r_e^2)}
                  {\sum_{e'} f_{e'} \exp(s\,q_i \cdot k_{j'} - a_i r_{e'}^2)}, \qquad
       y_i = \sum_e p_e v_j, \qquad z_i = \sum_e p_e b_e

    for each head, where e = (i, j, n) runs over the images of atom i's neighbors.

    ============  ================  ===============================================
    symbol        variable          meaning
    ============  ================  ===============================================
    :math:`s`     scale             inverse square root of the head width
    :math:`a`     falloff           1 / 2σ², 1/Å²
    :math:`r^2`   squared_distance  Å²
    :math:`f`     log_weight        natural logarithm of the image's cutoff weight
    :math:`b`     basis             encoding of the image's position
    ============  ================  ===============================================

    Parameters
    ----------
    query, key, value : Tensor, shape (n_atoms, heads, width)
        In the layout's order of atoms.
    falloff : Tensor, shape (n_atoms, heads)
    squared_distance, log_weight : Tensor, shape (n_slots,)
        A large negative logarithm hides a slot; padding must have one.
    basis : Tensor, shape (n_slots, n_basis)
        May have no column.
    layout : ImageLayout
    scale : float

    Returns
    -------
    tuple of Tensor
        y (n_atoms, heads, width) and z (n_atoms, heads, n_basis), differentiable any number of
        times.
    """
    n, heads, _ = query.shape
    i, j = layout.center, layout.neighbor
    logits = scale * (query[i] * key[j]).sum(-1)  # (n_slots, heads)
    logits = logits - falloff[i] * squared_distance[:, None] + log_weight[:, None]
    rows = i[:, None].expand(-1, heads)
    largest = logits.new_full((n, heads), -torch.inf)
    largest = largest.scatter_reduce(0, rows, logits.detach(), "amax")
    weight = torch.exp(logits - largest[i])
    p = weight / torch.zeros_like(largest).index_add(0, i, weight)[i]
    y = torch.zeros_like(value).index_add(0, i, p[:, :, None] * value[j])
    z = value.new_zeros(n, heads, basis.shape[1]).index_add(0, i, p[:, :, None] * basis[:, None, :])
    return y, z
