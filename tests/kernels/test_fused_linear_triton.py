"""The Triton kernels of the fused linear map against the reference."""

import importlib.util
from functools import partial
from unittest import mock

import pytest
import torch
from kernels.processes import in_a_process
from kernels.test_fused_linear import FORMS, SIZES, derivatives, deviation, make

from pet_calc.kernels.fused_linear import fused_linear, reference
from pet_calc.kernels.operation import Selection, selecting

MODULE = "kernels.test_fused_linear_triton"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")


@needs_triton
def test_kernels_are_the_reference():
    in_a_process(MODULE, "compare_interpreted", TRITON_INTERPRET="1")


def compare_interpreted():
    from pet_calc.kernels.fused_linear import triton

    for form in FORMS:
        for size in SIZES:
            arguments = make(form, size)
            assert fused_linear.reason(*arguments[0], **arguments[1]) is None
            # without gradients on the weights the backward pass is a kernel too
            for trained in (False, True):
                found = derivatives(triton.fused_linear, *arguments, trained)
                expected = derivatives(reference.fused_linear, *arguments, trained)
                assert deviation(found, expected) < 1e-12, (form, size, trained)
            # control: a deviation of 1e-9 in any of them is seen
            for k, x in enumerate(found):
                spoilt = [*found[:k], x + 1e-9 * (1 + x.abs()), *found[k + 1 :]]
                assert deviation(spoilt, expected) > 1e-10 or not x.numel()
    # inputs that are not contiguous keep their second derivatives
    tensors, form = make("silu-residual", "odd")
    turned = [None if t is None else t.mT.contiguous().mT for t in tensors[:2]] + tensors[2:]
    found = derivatives(triton.fused_linear, turned, form)
    assert deviation(found, derivatives(reference.fused_linear, tensors, form)) < 1e-12
    # float32, with memory of outputs that holds NaN before
    plain = torch.Tensor.new_empty
    torch.Tensor.new_empty = lambda t, *shape, **k: t.new_full(shape, torch.nan, **k)
    try:
        found = derivatives(triton.fused_linear, *make("rms-gated", "odd", torch.float32))[:2]
    finally:
        torch.Tensor.new_empty = plain
    expected = derivatives(reference.fused_linear, *make("rms-gated", "odd"))[:2]
    assert 0 < deviation(found, expected) < 1e-5
    compare_rounded(triton)


def cut(x):
    """Values in float64 with the mantissa of bfloat16, to which Triton's interpreter cuts."""
    return (x.contiguous().view(torch.int64) & -(1 << 45)).view(torch.float64)


def compare_rounded(triton):
    """Operands are rounded to bfloat16 in both passes, and nothing else is."""
    (x, weight, bias, _), form = make("silu", "odd")
    tensors, fast = [x, weight, bias, None], partial(triton.fused_linear, precision="fast")
    found = derivatives(fast, tensors, form)[:2]
    low = cut(weight)
    out = cut(torch.nn.functional.silu(x)) @ low.mT + bias
    grad = cut(1.3 * out.cos()) @ low
    slope = x.sigmoid() * (1.0 + x * (1.0 - x.sigmoid()))
    assert deviation(found, [out, grad * slope]) < 1e-6
    assert deviation(found, derivatives(reference.fused_linear, tensors, form)[:2]) > 1e-4


@needs_triton
def test_a_model_with_kernels_is_the_model():
    in_a_process(MODULE, "compare_models", TRITON_INTERPRET="1")


def compare_models():
    from calculators.small_potentials import liquid, rare_pet

    from pet_calc.io.structures.atoms import system_from_atoms
    from pet_calc.kernels.fused_linear import triton
    from pet_calc.models import evaluate
    from pet_calc.neighbors import neighbor_list

    system = system_from_atoms(liquid(1, length=4.0))
    forms = []
    whole = triton.fused_linear

    def noted(x, weight, bias, residual=None, *, prologue="none", gated=False):
        forms.append((prologue, gated, residual is not None))
        return whole(x, weight, bias, residual, prologue=prologue, gated=gated)

    triton.fused_linear = noted
    for options in (
        {"input_encoding": "radial", "num_neighbors_adaptive": 6.0},
        {"featurizer_type": "residual", "activation": "SiLU"},
        {"transformer_type": "PostLN", "normalization": "LayerNorm"},
    ):
        model = rare_pet(**options).requires_grad_(False)
        edges = neighbor_list(system, model.cutoff)
        expected = evaluate(model, system, edges)
        selection = Selection("triton", allowed=frozenset({fused_linear.name}))
        with selecting(selection):
            found = evaluate(model, system, edges)
        assert selection.used == {fused_linear.name: "highest"}
        pairs = [(found.energies, expected.energies), (found.forces, expected.forces)]
        assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-10
        assert float(expected.forces.abs().max()) > 1e-2
    # but one: on a CPU so few tokens are normalized apart from the gate's map
    assert set(forms) == set(FORMS.values()) - {FORMS["rms-gated"]}, set(forms)
    # control: another result of the kernels is another energy
    triton.fused_linear = lambda *a, **k: noted(*a, **k) * (1.0 + 1e-6)
    with selecting(selection):
        spoilt = evaluate(model, system, edges)
    assert float((spoilt.energies - expected.energies).abs().max()) > 1e-8


@needs_triton
def test_steps_in_fixed_shapes_use_the_kernels():
    in_a_process(MODULE, "compare_fixed_steps", TRITON_INTERPRET="1")


def compare_fixed_steps():
    from calculators.small_potentials import liquid, small_pet

    from pet_calc.calculators.fixed_step import FixedStep
    from pet_calc.io.structures.atoms import system_from_atoms
    from pet_calc.kernels.fused_linear import triton

    system = system_from_atoms(liquid(1, length=4.0))
    model = small_pet().requires_grad_(False)
    step = FixedStep(torch.device("cpu"), 0.5, "triton")
    with mock.patch.object(triton, "fused_linear", wraps=triton.fused_linear) as kernel:
        step(model, system)
    assert step.problem is None
    assert kernel.call_count > 0


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("highest", 1e-5), ("high", 1e-2), ("fast", 1e-1)]
)
@pytest.mark.parametrize("form", FORMS)
def test_kernels_on_the_gpu(form, precision, tolerance):
    from pet_calc.kernels.fused_linear import triton

    tensors, options = make(form, "beyond-tiles", torch.float32)
    moved = [None if t is None else t.cuda() for t in tensors]

    def kernel(*arguments, **form):
        return triton.fused_linear(*arguments, **form, precision=precision)

    found = derivatives(kernel, moved, options)[:2]
    expected = derivatives(reference.fused_linear, *make(form, "beyond-tiles"))[:2]
    assert deviation([x.cpu().double() for x in found], expected) < tolerance
