"""The Triton kernels of the cutoff attention against the reference; compiled ahead of time."""

import importlib.util
import re

import pytest
import torch
from kernels.processes import in_a_process, resources

from pet_calc.kernels.cutoff_attention import cutoff_attention, reference

# atoms, tokens, heads, width of a head
CASES = {
    "odd": (2, 5, 3, 5),
    "one-token": (1, 1, 1, 1),
    "full-tile": (1, 16, 2, 16),
    "beyond-a-tile": (1, 33, 1, 17),
    "no-atoms": (0, 4, 2, 8),
}
MODULE = "kernels.test_cutoff_attention_triton"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")


def make(case, seed=0, dtype=torch.float64):
    """Packed tokens, logarithmic weights with hidden keys, heads, scale."""
    n, t, heads, width = CASES[case]
    g = torch.Generator().manual_seed(seed)
    packed = torch.randn(n, t, 3 * heads * width, dtype=torch.float64, generator=g)
    weight = torch.rand(n, t, dtype=torch.float64, generator=g).log()
    weight[:, 3:4] = -1e9
    tensors = [x.to(dtype).requires_grad_() for x in (packed, weight)]
    return tensors, heads, width**-0.5


def derivatives(kernel, tensors, heads, scale):
    """Value, gradients, and gradients of a function of the gradients."""
    out = kernel(*tensors, heads, scale)
    plain = torch.autograd.grad((out.sin() * 1.3).sum(), tensors)
    out = kernel(*tensors, heads, scale)
    first = torch.autograd.grad((out.sin() * 1.3).sum(), tensors, create_graph=True)
    scalar = sum((g.sin() * (k + 1)).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(scalar, tensors)
    return [out.detach(), *plain, *(g.detach() for g in first), *second]


def largest(a, b):
    return max(float((x - y).abs().max()) if x.numel() else 0.0 for x, y in zip(a, b, strict=True))


@needs_triton
def test_kernels_are_the_reference():
    in_a_process(MODULE, "compare_interpreted", TRITON_INTERPRET="1")


def compare_interpreted():
    from pet_calc.kernels.cutoff_attention import triton

    for case in CASES:
        arguments = make(case)
        assert cutoff_attention.reason(*arguments[0], *arguments[1:]) is None
        found = derivatives(triton.cutoff_attention, *arguments)
        expected = derivatives(reference.cutoff_attention, *arguments)
        assert largest(found, expected) < 1e-12, case
        if found[0].numel():  # control: the comparison sees a deviation of 1e-9
            assert largest([found[0] + 1e-9, *found[1:]], expected) > 1e-12
    # inputs that are not contiguous keep their second derivatives
    tensors, heads, scale = make("odd")
    turned = [t.detach().mT.contiguous().mT.requires_grad_() for t in tensors]
    found = derivatives(triton.cutoff_attention, turned, heads, scale)
    expected = derivatives(reference.cutoff_attention, tensors, heads, scale)
    assert largest(found, expected) < 1e-12
    # float32, with memory of outputs that holds NaN before
    tensors, heads, scale = make("odd", dtype=torch.float32)
    poisoned = torch.empty_like
    torch.empty_like = lambda t, **_: torch.full(t.shape, torch.nan, dtype=t.dtype)
    try:
        out = triton.cutoff_attention(*tensors, heads, scale)
        found = [out.detach(), *torch.autograd.grad(out.sum(), tensors)]
    finally:
        torch.empty_like = poisoned
    exact, _, _ = make("odd")
    out = reference.cutoff_attention(*exact, heads, scale)
    expected = [out.detach(), *torch.autograd.grad(out.sum(), exact)]
    assert 0 < largest(found, expected) < 1e-5


@pytest.mark.parametrize("precision", ["highest", "high", "fast"])
@needs_triton
def test_kernels_compile_for_hopper(precision):
    in_a_process(MODULE, f"compile_for_hopper_{precision}", TRITON_INTERPRET="0")


def compile_for_hopper_highest():
    compile_for_hopper("highest")


def compile_for_hopper_high():
    compile_for_hopper("high")


def compile_for_hopper_fast():
    compile_for_hopper("fast")


def compile_for_hopper(precision):
    """Tensor cores are used, and registers counted, at d = 128 with 8 heads and 48 tokens."""

    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.cutoff_attention import triton

    how = triton.launch(torch.empty(1, 48, 384), 8, precision)
    options = {"num_warps": how.pop("num_warps")}
    for kernel in (triton.forward_kernel, triton.backward_kernel):
        signature = dict.fromkeys(kernel.arg_names, "*fp32")
        signature |= {"n_tokens": "i32", "scale": "fp32"} | dict.fromkeys(how, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=how)
        target = GPUTarget("cuda", 90, 32)
        compiled = compiler.compile(source, target=target, options=options)
        assert "sm_90" in compiled.asm["ptx"]
        assert re.search(r"\b(mma|wgmma)\b", compiled.asm["ptx"]), "no tensor cores"
        registers, stack = resources(compiled)
        print(kernel.__name__, precision, "registers", registers, "stack", stack)
        # three products of halves take more than there is: a bound, so that it does not grow
        three = kernel is triton.backward_kernel and precision == "highest"
        assert stack <= (288 if three else 0), f"{stack} bytes of registers spilled"
        assert registers <= 255


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("highest", 1e-4), ("high", 3e-2), ("fast", 3e-1)]
)
@pytest.mark.parametrize("case", ["odd", "full-tile", "beyond-a-tile"])
def test_kernels_on_the_gpu(case, precision, tolerance):
    from pet_calc.kernels.cutoff_attention import triton

    tensors, heads, scale = make(case)
    moved = [t.detach().float().cuda().requires_grad_() for t in tensors]
    out = triton.cutoff_attention(*moved, heads, scale, precision)
    found = [out.detach(), *torch.autograd.grad(out.sum(), moved)]
    out = reference.cutoff_attention(*tensors, heads, scale)
    expected = [out.detach(), *torch.autograd.grad(out.sum(), tensors)]
    assert largest([x.cpu().double() for x in found], expected) < tolerance
