r"""Directions of images in the values, averaged over the local frames of the center.

CrystalFramer [Ito et al., ICLR 2025] encodes, beside the length of the vector to an image, its
cosines with the axes of one frame of the center, chosen by the largest weights with random numbers
to break ties: energies jump where the choice changes, and symmetric crystals give random results.
Here every image has the mean of its encodings over the frame ensemble of
`pet_calc.models.ecse.frames`, whose weights are smooth in the positions,

.. math:: \beta_{e,m} = \sum_f \hat w_f \, b(e^{(f)}_m \cdot \hat r_e), \qquad
          b_k(c) = e^{-(c - \mu_k)^2 / 2 \mu^2}

with μ_k evenly spread over [-1, 1], μ apart. Values enter the attention linearly, so that the
mean over frames of what a head sums up is the sum of these means: they are found once for each
image, for all heads and layers. Frames come with their mirror images: the encoding of the second
axis is even, and the model stays invariant under rotations and reflections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pet_calc.geometry import Edges, gaussians
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.ecse.orientations import orientations, oriented


def num_directional(num_angular: int) -> int:
    """Number of columns of `directional_encoding`."""
    return 2 * num_angular + (num_angular + 1) // 2


def directional_encoding(
    edges: Edges, vectors: Tensor, n_atoms: int, cutoff: float, num_angular: int,
    frames: FrameConfig,
) -> Tensor:  # fmt: skip
    """Mean encoding of the direction of every edge, (n_edges, `num_directional`).

    Parameters
    ----------
    edges : Edges
        Sorted by center.
    vectors : Tensor, shape (n_edges, 3)
        In Å.
    n_atoms : int
    cutoff : float
        Of the model, in Å: beyond it less the taper of the frames no neighbor forms one.
    num_angular : int
        Gaussians for each axis, at least 2.
    frames : FrameConfig
    """
    center = edges.edge_index[0]
    # frames in float64: differences of their weights decide
    exact = vectors.double()
    views = orientations(center, exact, n_atoms, cutoff, frames, mirrored=False)
    unit = exact / exact.square().sum(-1, keepdim=True).sqrt()
    # every view meets every edge of its atom
    count = torch.bincount(center, minlength=n_atoms)
    first = torch.cumsum(count, 0) - count
    of_view = count[views.group]
    view = torch.arange(views.n_views, device=center.device).repeat_interleave(of_view)
    begin = torch.cumsum(of_view, 0) - of_view
    edge = first[views.group[view]] + torch.arange(len(view), device=center.device) - begin[view]
    cosines = oriented(unit[edge], views.matrix[view], views.sign[view], views.kind[view])
    cosines, weight = cosines.to(vectors.dtype), views.weight[view].to(vectors.dtype)
    spacing = 2.0 / (num_angular - 1)
    centers = torch.linspace(-1, 1, num_angular, dtype=vectors.dtype, device=vectors.device)
    encoded = weight[:, None, None] * gaussians(cosines, centers, 0.5 / spacing**2)
    mean = encoded.new_zeros(len(vectors), 3, num_angular).index_add(0, edge, encoded)
    # b_k(-c) is b of the opposite center: half of the columns say all of an even encoding
    along, normal, across = mean.unbind(1)
    even = 0.5 * (normal + normal.flip(-1))[:, : (num_angular + 1) // 2]
    return torch.cat([along, even, across], dim=1)
