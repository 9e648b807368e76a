"""Gaussians: those of the formula, and no number too small to be normal."""

import numpy as np
import pytest
import torch

from pet_calc.geometry import gaussians


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_derivatives(dtype: torch.dtype) -> None:
    x = torch.linspace(0.0, 4.0, 301, dtype=dtype, requires_grad=True)
    centers = torch.linspace(0.0, 4.0, 24, dtype=torch.float64)
    rate = 18.0
    found = gaussians(x, centers, rate)
    away = x.detach().double().numpy()[:, None] - centers.numpy()
    expected = np.exp(-rate * away**2)
    tolerance = 1e-14 if dtype == torch.float64 else 5e-6
    assert found.dtype == dtype
    assert np.abs(found.detach().numpy() - expected).max() < tolerance
    (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    assert np.abs(slope.detach().numpy() - (-2 * rate * away * expected).sum(1)).max() < (
        30 * tolerance
    )
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    second = ((2 * rate * away) ** 2 - 2 * rate) * expected
    assert np.abs(curvature.numpy() - second.sum(1)).max() < 2000 * tolerance


def test_no_value_is_subnormal() -> None:
    """They and all that is multiplied with them would be a hundred times as slow on a CPU."""
    x, centers, rate = torch.linspace(0.0, 4.0, 1001), torch.linspace(0.0, 4.0, 48), 70.0

    def subnormal(values: torch.Tensor) -> int:
        return int(((values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)).sum())

    found = gaussians(x, centers, rate)
    assert subnormal(found) == 0
    assert subnormal(found * found[:, :1].clamp_min(1e-10)) == 0
    # positive control: the formula without its bound has many
    assert subnormal(torch.exp(-rate * (x[:, None] - centers).square())) > 1000


def test_shape() -> None:
    assert gaussians(torch.zeros(2, 3), torch.arange(4.0), 1.0).shape == (2, 3, 4)
