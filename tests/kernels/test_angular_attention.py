"""Angular attention: the written-out derivatives are those of the reference."""

from __future__ import annotations

import pytest
import torch

from pet_calc.kernels.angular_attention import analytic, angular_attention, reference

HEADS, DEGREE, WIDTH = 2, 3, 4


def inputs(n: int, t: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (n, t, 3 * HEADS * WIDTH + 3 * HEADS * DEGREE), (n, t, DEGREE * (DEGREE + 2)), (n, t),
    )  # fmt: skip
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for s in shapes
    ]


def first_and_second(function, tensors):
    """Value, gradients, and the gradients of a function of the gradients."""
    out = function(*tensors, HEADS, 0.7, DEGREE)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    first = torch.autograd.grad((weight * out.sin()).sum(), tensors, create_graph=True)
    mixed = torch.stack([g.sin().sum() for g in first]).sum()
    second = torch.autograd.grad(mixed, tensors)
    return [out.detach(), *(g.detach() for g in first), *second]


@pytest.mark.parametrize("shape", [(3, 5), (2, 1), (0, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-3)])
def test_derivatives_are_those_of_the_reference(shape, dtype, tolerance) -> None:
    tensors = inputs(*shape, dtype)
    found = first_and_second(angular_attention, tensors)
    expected = first_and_second(reference.angular_attention, tensors)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert agree(a, b, tolerance)
        assert shape != (3, 5) or b.abs().max() > 1e-3


def agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether the deviation is small beside the largest value."""
    if not len(expected):
        return found.shape == expected.shape
    return bool((found - expected).abs().max() <= tolerance * (expected.abs().max() + 1e-3))


def test_a_wrong_strength_is_noticed() -> None:
    """Positive control of the tolerance."""
    tensors = inputs(3, 5)
    expected = first_and_second(reference.angular_attention, tensors)
    with torch.no_grad():
        tensors[0][..., -1] *= 1.0 + 1e-7
    for a, b in zip(first_and_second(angular_attention, tensors), expected, strict=True):
        assert not agree(a, b, 1e-10)


def test_derivatives_of_any_order() -> None:
    small = [x[:1, :2].detach().clone().requires_grad_() for x in inputs(1, 2)]

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        return analytic.angular_attention(*tensors, HEADS, 0.7, DEGREE)

    assert torch.autograd.gradcheck(function, small)
    assert torch.autograd.gradgradcheck(function, small)

    def third(function, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = function(*tensors, HEADS, 0.7, DEGREE).sin().sum()
        for _ in range(2):
            gradients = torch.autograd.grad(found, tensors, create_graph=True)
            found = torch.stack([g.sin().sum() for g in gradients]).sum()
        return torch.autograd.grad(found, tensors)

    tensors = inputs(2, 3)
    pairs = zip(
        third(analytic.angular_attention, tensors), third(reference.angular_attention, tensors),
        strict=True,
    )  # fmt: skip
    for a, b in pairs:
        assert agree(a, b, 1e-9)
        assert b.abs().max() > 1e-2


def test_hidden_tokens_tell_nothing() -> None:
    made, harmonics, log_weight = (x.detach() for x in inputs(2, 4))
    log_weight[:, -1] = -1e9
    whole = angular_attention(made, harmonics, log_weight, HEADS, 0.7, DEGREE)[:, :-1]
    less = angular_attention(
        made[:, :-1].contiguous(), harmonics[:, :-1].contiguous(), log_weight[:, :-1], HEADS, 0.7,
        DEGREE,
    )  # fmt: skip
    torch.testing.assert_close(whole, less, rtol=0, atol=1e-13)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6, 8])
def test_each_harmonic_has_its_degree(degree: int) -> None:
    like = torch.zeros((), dtype=torch.float64)
    expected = torch.repeat_interleave(
        torch.eye(degree, dtype=torch.float64),
        torch.tensor([2 * l + 1 for l in range(1, degree + 1)]),
        dim=1,
    )
    assert torch.equal(reference.spread(degree, like), expected)
    places = [list(range(p.start, p.stop)) for p in analytic.parts(degree)]
    assert [row.nonzero()[:, 0].tolist() for row in expected] == places
