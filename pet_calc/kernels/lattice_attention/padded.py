"""The same operation as products of small matrices, one batch of them per bucket of atoms."""

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
    """Attention of every atom over periodic images; see the reference.

    Queries of all heads are laid out on a block diagonal, so that one product with the keys of an
    atom's images, as they are in memory, gives the logits of all heads.
    """
    n, heads, width = query.shape
    keys = key.reshape(n, heads * width).index_select(0, layout.neighbor)
    values = value.reshape(n, heads * width).index_select(0, layout.neighbor)
    queries = torch.diag_embed(scale * query.transpose(1, 2), dim1=1, dim2=3)  # (n, h, w, h)
    # one split per tensor: the backward pass of slices would add full-sized tensors of zeros
    atoms = [b.n_atoms for b in layout.buckets]
    slots = [b.n_atoms * b.width for b in layout.buckets]
    parts = zip(
        layout.buckets,
        queries.transpose(2, 3).reshape(n, heads, heads * width).split(atoms),
        falloff.split(atoms),
        keys.split(slots),
        values.split(slots),
        squared_distance.split(slots),
        log_weight.split(slots),
        basis.split(slots),
        strict=True,
    )
    ys, zs = [], []
    for bucket, q, a, k, v, r2, w, b in parts:
        shape = (bucket.n_atoms, bucket.width)
        bias = w.view(*shape)[:, None, :] - a[:, :, None] * r2.view(*shape)[:, None, :]
        logits = torch.baddbmm(bias, q, k.view(*shape, -1).transpose(1, 2))
        p = torch.softmax(logits, dim=-1)  # (n_atoms, heads, n_images)
        every = torch.bmm(p, v.view(*shape, -1)).view(bucket.n_atoms, heads, heads, width)
        ys.append(torch.diagonal(every, dim1=1, dim2=2).transpose(1, 2))
        zs.append(torch.bmm(p, b.view(*shape, -1)))
    if not ys:
        return value, value.new_zeros(0, heads, basis.shape[1])
    return torch.cat(ys), torch.cat(zs)
