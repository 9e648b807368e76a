"""The bump: limits, monotonic, smooth, and the derivative that autograd takes."""

import numpy as np
import pytest
import torch

from pet_calc.kernels.cutoff_functions import bump

R, W = 4.5, 0.5


def f(r: np.ndarray) -> np.ndarray:
    return np.asarray(bump(torch.from_numpy(np.asarray(r, dtype=np.float64)), R, W).numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_exactly_one_inside_and_zero_outside(dtype: torch.dtype) -> None:
    inside = bump(torch.tensor([0.0, 1.0, R - W, R - W + 1e-5], dtype=dtype), R, W)
    outside = bump(torch.tensor([R - 1e-5, R, R + 1.0, 1e6], dtype=dtype), R, W)
    assert inside.dtype == dtype
    assert inside.tolist() == [1, 1, 1, 1]
    assert outside.tolist() == [0, 0, 0, 0]


def test_falls_monotonically_and_is_antisymmetric_about_one_half() -> None:
    r = np.linspace(R - W, R, 1001)
    values = f(r)
    assert (np.diff(values) <= 0).all()
    assert np.allclose(values + values[::-1], 1, rtol=0, atol=1e-12)
    assert f(np.array([R - W / 2]))[0] == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("edge", [R - W, R])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_vanish_at_both_ends(edge: float, order: int) -> None:
    """One-sided differences on both sides tend to zero, faster than a C1 or C2 switch would."""
    stencil = {1: [-1, 1], 2: [1, -2, 1], 3: [-1, 3, -3, 1]}[order]
    for h in (1e-2, -1e-2):
        points = f(edge + h * np.arange(order + 1) / order)
        difference = abs(float(np.dot(stencil, points)) / (abs(h) / order) ** order)
        assert difference < 1e-6


def test_autograd_follows_finite_differences() -> None:
    r = torch.linspace(R - 1.2 * W, R + 0.2 * W, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bump(x, R, W), (r,))
    ones = torch.ones_like(r).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: bump(x, R, W), (r,), (ones,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivative_is_accurate_about_the_middle(dtype: torch.dtype) -> None:
    """It changes sign there; as 1 / tan, autograd gave up to 165 instead of 0 (in 1/Å²)."""
    middle = torch.tensor(R - W / 2, dtype=dtype)
    r = (middle + torch.linspace(-1e-6, 1e-6, 41, dtype=dtype)).requires_grad_()
    (slope,) = torch.autograd.grad(bump(r, R, W).sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    assert slope.detach().allclose(torch.tensor(-np.pi / 2 / W, dtype=dtype), rtol=1e-5)
    assert curvature.abs().max() < 1e-3


def test_gradient_is_finite_everywhere() -> None:
    r = torch.linspace(0, 2 * R, 100_001, dtype=torch.float32, requires_grad=True)
    bump(r, R, W).sum().backward()
    assert r.grad is not None
    assert torch.isfinite(r.grad).all()
    assert (r.grad <= 0).all()
