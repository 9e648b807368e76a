"""Representations of O(3): their parts, their matrices, and the Cartesian form of components.

Components follow e3nn's irreps ("1o" is a vector, "0e + 2e" a symmetric second-rank tensor), in
e3nn's basis and order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from pet_calc.errors import MissingDependencyError
from pet_calc.geometry import spherical_harmonics


def irreducible(irreps: str) -> tuple[tuple[int, int], ...]:
    """Degree l and parity ±1 of each irreducible part, in order; "2x1o" counts twice.

    Raises
    ------
    ValueError
        For what e3nn does not take for irreps.
    MissingDependencyError
        Without e3nn.
    """
    o3 = require_e3nn()
    try:
        parts = o3.Irreps(irreps)
    except ValueError as error:
        raise ValueError(
            f"`irreps` must be representations of O(3) in e3nn's notation, such as '1o' or "
            f"'0e + 2e', got {irreps!r}"
        ) from error
    found = tuple((ir.l, ir.p) for mul, ir in parts for _ in range(mul))
    if not found:
        raise ValueError(f"`irreps` must have at least one part, got {irreps!r}")
    return found


def require_e3nn() -> Any:
    """The module ``e3nn.o3``."""
    try:
        from e3nn import o3
    except ImportError as error:
        raise MissingDependencyError(
            'covariant outputs need e3nn; pip install "pet-calc[tensors]"'
        ) from error
    return o3


@cache
def coupling(first: int, second: int, third: int) -> Tensor:
    """Wigner 3j symbols (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) in e3nn's real basis, float64."""
    found: Tensor = require_e3nn().wigner_3j(first, second, third, dtype=torch.float64)
    return found


def wigner(degree: int, matrix: Tensor) -> Tensor:
    r"""Representation (..., 2 l + 1, 2 l + 1) of rotations (..., 3, 3) on degree l, float64.

    By its recursion in l, which is polynomial in the matrix and so has derivatives everywhere,
    unlike the usual way over angles:

    .. math:: D^l_{mn} = (2l+1) \sum C^{l-1,1,l}_{abm} \, D^{l-1}_{ac} D^1_{bd} \,
              C^{l-1,1,l}_{cdn}
    """
    if degree == 0:
        return matrix.new_ones((*matrix.shape[:-2], 1, 1))
    found = matrix
    for l in range(2, degree + 1):
        c = coupling(l - 1, 1, l).to(matrix.device)
        inner = torch.einsum("abm,...ac,...bd->...mcd", c, found, matrix)
        found = (2 * l + 1) * torch.einsum("...mcd,cdn->...mn", inner, c)
    return found


def turned_back(values: Tensor, matrix: Tensor, parts: tuple[tuple[int, int], ...]) -> Tensor:
    """Components (n, dim) that were read in views (n, 3, 3), orthogonal or zero, in the world's.

    A view may be a reflection: parts of even and odd parity differ under it.
    """
    sign = torch.linalg.det(matrix.detach()).round()[:, None]
    proper = matrix * sign[..., None]
    found, begin = [], 0
    for degree, parity in parts:
        width = 2 * degree + 1
        part = torch.einsum("nab,nb->na", wigner(degree, proper), values[:, begin : begin + width])
        found.append(part if parity == 1 else sign * part)
        begin += width
    return torch.cat(found, dim=1)


def harmonics(degree: int, unit: Tensor) -> Tensor:
    """Real spherical harmonics (..., 2 l + 1) of unit vectors (..., 3), in e3nn's basis.

    Polynomials of the components, of the length 1; `degree` is 1 or more.
    """
    # e3nn's polar axis is y, and its orders m run from -l to l
    found = spherical_harmonics(unit[..., [2, 0, 1]], degree)[..., degree * degree - 1 :]
    return found[..., [*range(2 * degree, 0, -2), 0, *range(1, 2 * degree, 2)]]


def edge_parts(parts: tuple[tuple[int, int], ...]) -> list[tuple[int, int, int]]:
    """Parts that edges have harmonics for: index, degree and first component of each."""
    found, begin = [], 0
    for k, (degree, parity) in enumerate(parts):
        if degree > 0 and parity == (-1) ** degree:
            found.append((k, degree, begin))
        begin += 2 * degree + 1
    return found


def largest(parts: tuple[tuple[int, int], ...]) -> int:
    """The largest degree."""
    return max(degree for degree, _ in parts)


def dimension(parts: tuple[tuple[int, int], ...]) -> int:
    """Number of components."""
    return sum(2 * degree + 1 for degree, _ in parts)


def cartesian_basis(irreps: str) -> Tensor:
    """Cartesian form of each component: (3, 3) for a vector, (dim, 3, 3) for second rank.

    Raises
    ------
    ValueError
        For representations other than "1o" and parts of "0e + 1e + 2e", each once.
    """
    parts = irreducible(irreps)
    if parts == ((1, -1),):
        return torch.eye(3, dtype=torch.float64)
    if set(parts) <= {(0, 1), (1, 1), (2, 1)} and len(set(parts)) == len(parts):
        blocks = [coupling(1, 1, l).permute(2, 0, 1) * (2 * l + 1) ** 0.5 for l, _ in parts]
        return torch.cat(blocks)
    raise ValueError(
        f"a Cartesian form exists here for '1o' and for parts of '0e + 1e + 2e', got {irreps!r}; "
        f"use the components"
    )


def to_cartesian(components: Tensor, irreps: str) -> Tensor:
    """Cartesian vectors (..., 3) or tensors (..., 3, 3) from components (..., dim)."""
    return torch.tensordot(components, cartesian_basis(irreps).to(components), dims=1)


def from_cartesian(values: Tensor, irreps: str) -> Tensor:
    """Components (..., dim); the parts of a tensor outside of `irreps` are dropped."""
    basis = cartesian_basis(irreps).to(values)
    return torch.tensordot(values, basis.movedim(0, -1), dims=basis.dim() - 1)
