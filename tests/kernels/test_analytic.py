"""Every kernel with a derivative of its own against its reference, to the third derivative."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pet_calc.kernels.activations import (
    gated_linear_unit,
    gated_linear_unit_reference,
    sigmoid_linear_unit,
    sigmoid_linear_unit_reference,
)
from pet_calc.kernels.cutoff_attention import analytic as attention
from pet_calc.kernels.cutoff_attention import reference as attention_reference
from pet_calc.kernels.gathers import (
    concatenate,
    concatenate_reference,
    edges_to_slots,
    edges_to_slots_reference,
    reverse_edges,
    reverse_edges_reference,
)
from pet_calc.kernels.norms import (
    layer_direction,
    layer_direction_reference,
    rms_direction,
    rms_direction_reference,
)

Kernel = Callable[..., Tensor]
#: Seven slots of five edges, one of which has none, and its inverse.
SLOT_EDGE, EDGE_SLOT = torch.tensor([3, 5, 0, 1, 5, 5, 4]), torch.tensor([2, 3, 7, 0, 6])
REVERSE = torch.tensor([3, 4, 2, 0, 1])


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# name: fast kernel, reference, differentiable arguments, other arguments
CASES: dict[str, tuple[Kernel, Kernel, tuple[Tensor, ...], tuple[Any, ...]]] = {
    "rms": (rms_direction, rms_direction_reference, (random(2, 3, 5),), ()),
    "rms-width-1": (rms_direction, rms_direction_reference, (random(4, 1),), ()),
    "layer": (layer_direction, layer_direction_reference, (random(2, 3, 5),), (1e-5,)),
    "layer-width-1": (layer_direction, layer_direction_reference, (random(4, 1),), (1e-5,)),
    "silu": (sigmoid_linear_unit, sigmoid_linear_unit_reference, (random(2, 7),), ()),
    "concatenation": (
        partial(concatenate, dim=1),
        partial(concatenate_reference, dim=1),
        (random(2, 3), random(2, 1), random(2, 4)),
        (),
    ),
    "concatenation-of-one": (
        partial(concatenate, dim=0),
        partial(concatenate_reference, dim=0),
        (random(2, 3),),
        (),
    ),
    "glu": (gated_linear_unit, gated_linear_unit_reference, (random(2, 3, 6),), ()),
    "reverse": (reverse_edges, reverse_edges_reference, (random(5, 3),), (REVERSE,)),
    "slots": (edges_to_slots, edges_to_slots_reference, (random(5, 3),), (SLOT_EDGE, EDGE_SLOT)),
    "attention": (
        attention.cutoff_attention,
        attention_reference.cutoff_attention,
        (random(2, 4, 12), random(2, 4)),
        (2, 0.6),
    ),
    "attention-one-token": (
        attention.cutoff_attention,
        attention_reference.cutoff_attention,
        (random(3, 1, 6), random(3, 1)),
        (1, 1.0),
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Kernel, Kernel, tuple[Tensor, ...], Any]:
    fast, reference, tensors, others = CASES[request.param]
    return fast, reference, tuple(t.clone().requires_grad_() for t in tensors), others


def derivatives(kernel: Kernel, tensors: tuple[Tensor, ...], others: Any) -> list[Tensor]:
    """Value, gradient, gradient of a function of the gradient, and so on once more."""
    value = kernel(*tensors, *others)
    weight = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    first = torch.autograd.grad((weight * value.sin()).sum(), tensors, create_graph=True)
    scalar = sum((g.cos() * (k + 1)).sum() for k, g in enumerate(first))
    again = torch.autograd.grad(scalar, tensors, create_graph=True)
    third = torch.autograd.grad(sum(g.cos().sum() for g in again), tensors)
    second = [g.detach() for g in again]
    plain = torch.autograd.grad((weight * kernel(*tensors, *others).sin()).sum(), tensors)
    return [value.detach(), *(g.detach() for g in first), *plain, *second, *third]


def largest(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def test_value_and_derivatives_are_those_of_the_reference(case) -> None:
    fast, reference, tensors, others = case
    found = derivatives(fast, tensors, others)
    expected = derivatives(reference, tensors, others)
    assert largest(found, expected) < 1e-12
    # control: the comparison sees a deviation of 1e-9
    assert largest([found[0] + 1e-9, *found[1:]], expected) > 1e-12


def test_derivatives_are_those_of_finite_differences(case) -> None:
    fast, _, tensors, others = case
    assert torch.autograd.gradcheck(lambda *x: fast(*x, *others), tensors)
    assert torch.autograd.gradgradcheck(lambda *x: fast(*x, *others), tensors)


def test_signatures_agree(case) -> None:
    fast, reference, _, _ = case
    assert inspect.signature(fast) == inspect.signature(reference)


def test_inputs_are_not_changed(case) -> None:
    fast, _, tensors, others = case
    before = [t.detach().clone() for t in tensors]
    fast(*tensors, *others).sum().backward()
    assert all(torch.equal(t.detach(), b) for t, b in zip(tensors, before, strict=True))
