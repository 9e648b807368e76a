"""Spherical harmonics: addition theorem, representation, independence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import Legendre

from pet_calc.geometry import spherical_harmonics

DEGREE = 6


def unit_vectors(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    return x / x.norm(dim=1, keepdim=True)


def by_degree(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return values.split([2 * l + 1 for l in range(1, DEGREE + 1)], dim=-1)


def test_products_of_a_degree_are_a_legendre_polynomial() -> None:
    u, v = unit_vectors(40, 0), unit_vectors(40, 1)
    both = zip(
        by_degree(spherical_harmonics(u, DEGREE)), by_degree(spherical_harmonics(v, DEGREE)),
        strict=True,
    )  # fmt: skip
    for l, (a, b) in enumerate(both, start=1):
        expected = Legendre.basis(l)((u * v).sum(1).numpy())
        np.testing.assert_allclose((a * b).sum(1).numpy(), expected, atol=1e-13)
        # another degree is another function
        assert np.abs((a * b).sum(1).numpy() - Legendre.basis(l + 1)((u * v).sum(1))).max() > 0.3


def test_they_are_orthogonal_on_the_sphere() -> None:
    """Each has the mean square 1 / (2 l + 1): so many functions of one degree, and no fewer."""
    z, weight = np.polynomial.legendre.leggauss(DEGREE + 1)
    angle = 2 * np.pi * np.arange(2 * DEGREE + 2) / (2 * DEGREE + 2)
    z, angle = (g.ravel() for g in np.meshgrid(z, angle, indexing="ij"))
    weight = np.repeat(weight, 2 * DEGREE + 2) / (2 * (2 * DEGREE + 2))
    s = np.sqrt(1 - z**2)
    unit = torch.from_numpy(np.stack([s * np.cos(angle), s * np.sin(angle), z], axis=1))
    y = spherical_harmonics(unit, DEGREE).numpy()
    degrees = np.concatenate([[l] * (2 * l + 1) for l in range(1, DEGREE + 1)])
    np.testing.assert_allclose(
        y.T @ (weight[:, None] * y), np.diag(1 / (2 * degrees + 1)), atol=1e-13
    )


def test_first_degree_is_the_vector_itself() -> None:
    u = unit_vectors(3, 2)
    z, x, y = spherical_harmonics(u, 1).unbind(1)
    assert torch.equal(torch.stack([x, y, z], dim=1), u)


def test_mirror_image() -> None:
    y, mirrored = (by_degree(spherical_harmonics(s * unit_vectors(5, 3), DEGREE)) for s in (1, -1))
    for l, (a, b) in enumerate(zip(y, mirrored, strict=True), start=1):
        torch.testing.assert_close(b, (-1) ** l * a, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(dtype: torch.dtype) -> None:
    found = spherical_harmonics(unit_vectors(6, 4).to(dtype).view(2, 3, 3), 4)
    assert found.shape == (2, 3, 24)
    assert found.dtype == dtype
