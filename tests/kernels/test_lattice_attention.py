"""Lattice attention: the padded form and the Triton kernels against the reference and a loop."""

import importlib.util
import inspect
import math

import pytest
import torch
from kernels.processes import in_a_process

from pet_calc.kernels.lattice_attention import (
    image_layout,
    lattice_attention,
    padded,
    reference,
)

# atoms, heads, width of a head, encodings; images of each atom
CASES = {
    "odd": (5, 3, 5, 7, [3, 1, 4, 1, 37]),
    "no-encoding": (3, 2, 4, 0, [2, 5, 2]),
    "one-atom": (1, 1, 1, 1, [1]),
    "one-head-of-width-16": (4, 1, 16, 64, [33, 32, 31, 1]),
}
MODULE = "kernels.test_lattice_attention"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")


def make(case, seed=0):
    """Seven tensors, layout, scale."""
    n, heads, width, n_basis, counts = CASES[case]
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    center = torch.repeat_interleave(torch.arange(n), torch.tensor(counts))
    center = center[torch.randperm(len(center), generator=g)]
    neighbor = torch.randint(0, n, (len(center),), generator=g)
    layout = image_layout(center, neighbor, n, max_padding=0.3)
    slots = len(layout.center)
    weight = torch.rand(slots, dtype=torch.float64, generator=g).log()
    weight[layout.source == len(center)] = -1e9
    tensors = [
        normal(n, heads, width), normal(n, heads, width), normal(n, heads, width),
        normal(n, heads).square(), normal(slots).square(), weight, normal(slots, n_basis),
    ]  # fmt: skip
    return [t.requires_grad_() for t in tensors], layout, 0.4


def derivatives(kernel, tensors, layout, scale):
    """Values, gradients, and gradients of a function of the gradients."""
    y, z = kernel(*tensors, layout, scale)
    total = (y.sin() * 1.3).sum() + (z.cos() * 0.7).sum()
    first = torch.autograd.grad(total, tensors, create_graph=True)
    scalar = sum((g.sin() * (k + 1)).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(scalar, tensors)
    y, z = kernel(*tensors, layout, scale)
    plain = torch.autograd.grad((y.sin() * 1.3).sum() + (z.cos() * 0.7).sum(), tensors)
    return [y.detach(), z.detach(), *(g.detach() for g in first), *plain, *second]


def largest(a, b):
    return max(float((x - y).abs().max()) if x.numel() else 0.0 for x, y in zip(a, b, strict=True))


def test_reference_is_the_loop():
    tensors, layout, scale = make("odd")
    q, k, v, a, r2, w, b = (t.detach() for t in tensors)
    y, z = reference.lattice_attention(*tensors, layout, scale)
    for i in range(5):
        for h in range(3):
            top, mean, code = 0.0, torch.zeros(5).double(), torch.zeros(7).double()
            for e in range(len(r2)):
                if layout.center[e] != i:
                    continue
                j = layout.neighbor[e]
                x = math.exp(scale * float(q[i, h] @ k[j, h]) - float(a[i, h] * r2[e] - w[e]))
                top, mean, code = top + x, mean + x * v[j, h], code + x * b[e]
            assert torch.allclose(y[i, h], mean / top, rtol=0, atol=1e-13)
            assert torch.allclose(z[i, h], code / top, rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_padded_form_is_the_reference(case):
    arguments = make(case)
    found = derivatives(padded.lattice_attention, *arguments)
    expected = derivatives(reference.lattice_attention, *arguments)
    assert largest(found, expected) < 1e-11
    # control: the comparison sees a deviation of 1e-9
    assert largest([found[0] + 1e-9, *found[1:]], expected) > 1e-11


def test_derivatives_are_those_of_differences():
    tensors, layout, scale = make("no-encoding")
    arguments = (lambda *x: padded.lattice_attention(*x, layout, scale)[0], tensors)
    assert torch.autograd.gradcheck(*arguments)
    assert torch.autograd.gradgradcheck(*arguments)


def test_hidden_slots_do_not_matter():
    tensors, layout, scale = make("odd")
    hidden = tensors[5] < -1e8
    assert bool(hidden.any())
    for kernel in (padded.lattice_attention, reference.lattice_attention):
        before = kernel(*tensors, layout, scale)
        changed = [t.detach().clone() for t in tensors]
        changed[6][hidden] = 1e6
        after = kernel(*changed, layout, scale)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_layout_holds_every_image_once():
    center = torch.tensor([2, 0, 2, 1, 2])
    neighbor = torch.tensor([0, 1, 2, 2, 1])
    layout = image_layout(center, neighbor, 3)
    real = layout.source < 5
    assert sorted(layout.source[real].tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(layout.atom_order[layout.center[real]], center[layout.source[real]])
    assert torch.equal(layout.atom_order[layout.neighbor[real]], neighbor[layout.source[real]])
    assert torch.equal(layout.neighbor[~real], layout.center[~real])
    widths = layout.first_slot.diff()
    assert torch.equal(widths, torch.bincount(layout.center))
    with pytest.raises(ValueError, match="atom 3 has none"):
        image_layout(center, neighbor, 4)


def test_no_atoms():
    none = torch.zeros(0, dtype=torch.int64)
    layout = image_layout(none, none, 0)
    heads = torch.zeros(0, 2, 3)
    empty = torch.zeros(0)
    arguments = (heads, heads, heads, torch.zeros(0, 2), empty, empty, torch.zeros(0, 4))
    y, z = padded.lattice_attention(*arguments, layout, 1.0)
    assert y.shape == (0, 2, 3)
    assert z.shape == (0, 2, 4)


def test_signatures_agree():
    signature = inspect.signature(reference.lattice_attention)
    assert inspect.signature(padded.lattice_attention) == signature
    assert inspect.signature(lattice_attention) == signature


@needs_triton
def test_triton_kernels_are_the_reference():
    in_a_process(MODULE, "compare_interpreted", TRITON_INTERPRET="1")


def compare_interpreted():
    from pet_calc.kernels.lattice_attention import triton

    for case in CASES:
        tensors, layout, scale = make(case)
        assert lattice_attention.reason(*tensors, layout, scale) is None
        found = derivatives(triton.lattice_attention, tensors, layout, scale)
        expected = derivatives(reference.lattice_attention, tensors, layout, scale)
        assert largest(found, expected) < 1e-11, case
    # float32, with memory of outputs that holds NaN before
    tensors, layout, scale = make("odd")
    single = [t.detach().float().requires_grad_() for t in tensors]
    poisoned = torch.empty_like
    torch.empty_like = lambda t: torch.full_like(t, torch.nan)
    try:
        y, z = triton.lattice_attention(*single, layout, scale)
        found = torch.autograd.grad(y.sum() + z.sum(), single)
    finally:
        torch.empty_like = poisoned
    y, z = reference.lattice_attention(*tensors, layout, scale)
    expected = torch.autograd.grad(y.sum() + z.sum(), tensors)
    assert 0 < largest(found, expected) < 1e-5


@needs_triton
def test_triton_kernels_compile_for_hopper():
    in_a_process(MODULE, "compile_for_hopper", TRITON_INTERPRET="0")


def compile_for_hopper():
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.lattice_attention import triton

    constants = {"HEADS": 8, "WIDTH": 16, "BASIS": 64, "W": 16, "B": 64, "TILE": triton.TILE}
    integers = {"neighbor", "center", "first_slot", "incoming", "first_incoming"}
    for kernel in (
        triton.forward_kernel, triton.query_kernel, triton.key_kernel, triton.image_kernel,
    ):  # fmt: skip
        signature = {}
        for name in kernel.arg_names:
            if name in constants:
                signature[name] = "constexpr"
            elif name in integers:
                signature[name] = "*i64"
            else:
                signature[name] = {"scale": "fp32", "n_slots": "i32"}.get(name, "*fp32")
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = compiler.compile(source, target=GPUTarget("cuda", 90, 32))
        assert "sm_90" in compiled.asm["ptx"]
        assert len(compiled.asm["cubin"]) > 1000
        # spilled registers would lie in local memory
        assert ".local" not in compiled.asm["ptx"]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_triton_kernels_on_the_gpu(case):
    from pet_calc.kernels.lattice_attention import triton

    tensors, _, scale = make(case)
    n, *_ = CASES[case]
    tensors = [t.detach().cuda().requires_grad_() for t in tensors]
    layout = make(case)[1]
    moved = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in vars(layout).items()
    }
    layout = type(layout)(**moved)
    found = derivatives(triton.lattice_attention, tensors, layout, scale)
    expected = derivatives(reference.lattice_attention, tensors, layout, scale)
    assert largest(found, expected) < 1e-11
    assert n == layout.n_atoms
