"""The choice of a fused linear map, and what each precision of its products costs."""

import importlib.util

import pytest
import torch
from torch.nn import functional

from pet_calc.kernels.fused_linear import fused_linear, reference

HAS_TRITON = importlib.util.find_spec("triton") is not None

#: The forms that PET uses: prologue, gated, with a residual.
FORMS = {
    "plain": ("none", False, False),
    "residual": ("none", False, True),
    "gated": ("none", True, False),
    "rms": ("rms", False, False),
    "rms-gated": ("rms", True, False),
    "silu": ("silu", False, False),
    "silu-residual": ("silu", False, True),
}
#: Tokens, their width, and that of the result.
SIZES = {
    "odd": ((3, 7), 5, 3),
    "one": ((1,), 2, 1),
    "full": ((64,), 32, 32),
    "beyond-tiles": ((130,), 33, 140),
    "none": ((0, 4), 8, 6),
}


def make(form, size, dtype=torch.float64, seed=0):
    """Tensors (tokens, weight, bias, residual or None) and keywords of a form."""
    prologue, gated, added = FORMS[form]
    tokens, k, m = SIZES[size]
    g = torch.Generator().manual_seed(seed)
    rows = 2 * m if gated else m
    shapes = ((*tokens, k), (rows, k), (rows,), (*tokens, m))
    drawn = [torch.randn(*s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]
    return [*drawn[:3], drawn[3] if added else None], {"prologue": prologue, "gated": gated}


def derivatives(kernel, tensors, form, trained=False):
    """Value, gradients, and gradients of a function of the gradients."""
    tensors = [None if t is None else t.detach().clone() for t in tensors]
    of = [t for k, t in enumerate(tensors) if t is not None and (trained or k in (0, 3))]
    for t in of:
        t.requires_grad_()
    out = kernel(*tensors, **form)
    plain = torch.autograd.grad((out.sin() * 1.3).sum(), of)
    out = kernel(*tensors, **form)
    first = torch.autograd.grad((out.sin() * 1.3).sum(), of, create_graph=True)
    scalar = sum((g.sin() * (k + 1)).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(scalar, of)
    return [out.detach(), *plain, *(g.detach() for g in first), *second]


def deviation(found, expected):
    """Largest difference, relative to the largest value of each tensor."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        if a.numel():
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)))
    return worst


@pytest.mark.parametrize("form", FORMS)
def test_torch_is_the_reference(form):
    for size in SIZES:
        tensors, options = make(form, size)
        found = derivatives(fused_linear, tensors, options, trained=True)
        expected = derivatives(reference.fused_linear, tensors, options, trained=True)
        assert deviation(found, expected) < 1e-12, size


# --- rounding --------------------------------------------------------------------------------


def rounded(x, bits):
    """Values in float64 with a mantissa of so many bits, to nearest."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2.0 ** (bits + 1)).round() / 2.0 ** (bits + 1), exponent)


class _Product(torch.autograd.Function):
    """A product with a transposed matrix whose operands are rounded, and so is its gradient."""

    @staticmethod
    def forward(ctx, a, b, product):
        ctx.save_for_backward(b)
        ctx.product = product
        return product(a, b.mT)

    @staticmethod
    def backward(ctx, grad):
        return ctx.product(grad, ctx.saved_tensors[0]), None, None


def three_products(a, b):
    """Products of high parts of TensorFloat-32, and of each with the rest of the other."""
    parts = [(rounded(x, 10), rounded(x - rounded(x, 10), 10)) for x in (a, b)]
    (a, a_rest), (b, b_rest) = parts
    return a @ b + a_rest @ b + a @ b_rest


PRODUCTS = {
    "highest": three_products,
    "high": lambda a, b: rounded(a, 10) @ rounded(b, 10),
    "fast": lambda a, b: rounded(a, 7) @ rounded(b, 7),
}


def test_rounding_helper():
    x = torch.tensor([1.0, 1.0 + 2.0**-10, 1.0 + 2.0**-12, -3.3], dtype=torch.float64)
    assert rounded(x, 10)[:3].tolist() == [1.0, 1.0 + 2.0**-10, 1.0]
    assert torch.equal(rounded(x, 7), x.bfloat16().double())


def test_what_products_of_each_precision_cost(monkeypatch):
    """Forces of water with operands rounded as the kernels round them, against float64.

    Relative to their root mean square, TensorFloat-32 costs 3e-4 and bfloat16 3e-3 in a network of
    the default size with 192 atoms; here of a quarter of that width with 24.
    """
    from calculators.small_potentials import liquid

    from pet_calc.calculators.verification import TOLERANCES, disagreement
    from pet_calc.io.structures.atoms import system_from_atoms
    from pet_calc.models import evaluate
    from pet_calc.models.pet import PET, PETConfig
    from pet_calc.neighbors import neighbor_list

    torch.manual_seed(0)
    config = PETConfig(elements=(1, 8), d_pet=32, d_node=64, d_feedforward=64, d_head=32)
    model = PET(config, dtype=torch.float64).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        noise = torch.rand(p.shape, generator=generator, dtype=p.dtype) - 0.5
        p.add_(p.shape[-1] ** -0.5 * noise)
    system = system_from_atoms(liquid())
    edges = neighbor_list(system, model.cutoff)
    exact = evaluate(model, system, edges)
    size = float(exact.forces.square().mean().sqrt())
    linear, found = functional.linear, {}
    for precision, product in PRODUCTS.items():

        def emulated(x, weight, bias=None, product=product):
            if x.shape[-1] < 32:
                return linear(x, weight, bias)
            y = _Product.apply(x, weight, product)
            return y if bias is None else y + bias

        monkeypatch.setattr(functional, "linear", emulated)
        results = evaluate(model, system, edges)
        assert disagreement(results, exact, TOLERANCES[precision]) is None, precision
        found[precision] = float((results.forces - exact.forces).square().mean().sqrt()) / size
    print(found)
    assert 0 < found["highest"] < 3e-6
    assert 3e-5 < found["high"] < 3e-3
    assert 4 < found["fast"] / found["high"] < 16
