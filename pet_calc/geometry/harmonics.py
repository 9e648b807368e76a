r"""Real spherical harmonics as polynomials of unit vectors.

They are normalized so that the addition theorem has no factor,

.. math:: \sum_{m=-l}^{l} Y_{lm}(u) \, Y_{lm}(v) = P_l(u \cdot v)

with the Legendre polynomials P, and the harmonics of a unit vector have the length 1 in each
degree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spherical_harmonics(unit: Tensor, degree: int) -> Tensor:
    r"""Harmonics of the degrees 1 to `degree`, by degree, then by order m from 0 to ±l.

    .. math::
        Y_{l,\pm m} = \sqrt{(2 - \delta_{m0}) \frac{(l-m)!}{(l+m)!}} \, \frac{d^m P_l}{dz^m} \,
                      \{\mathrm{Re}, \mathrm{Im}\} (x + i y)^m

    Parameters
    ----------
    unit : Tensor, shape (..., 3)
        Unit vectors (x, y, z).
    degree : int

    Returns
    -------
    Tensor, shape (..., degree * (degree + 2))
    """
    x, y, z = unit.unbind(-1)
    one = torch.ones_like(z)
    # (x + i y)^m
    turns = [(one, torch.zeros_like(z))]
    for _ in range(degree):
        real, imaginary = turns[-1]
        turns.append((x * real - y * imaginary, x * imaginary + y * real))
    # m-th derivatives of P_l, without their constants for l = m
    slopes: dict[tuple[int, int], Tensor] = {}
    for m in range(degree + 1):
        slopes[m, m] = one * math.prod(range(1, 2 * m, 2))
        for l in range(m + 1, degree + 1):
            lower = slopes[l - 2, m] * (l + m - 1) if l > m + 1 else 0.0
            slopes[l, m] = ((2 * l - 1) * z * slopes[l - 1, m] - lower) / (l - m)
    found = []
    for l in range(1, degree + 1):
        for m in range(l + 1):
            norm = math.sqrt((1 if m == 0 else 2) * math.factorial(l - m) / math.factorial(l + m))
            found += [norm * slopes[l, m] * part for part in turns[m][: 1 if m == 0 else 2]]
    return torch.stack(found, dim=-1)
