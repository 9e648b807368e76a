"""The edge embedding in torch: its written gradients, its limits, its check at first use."""

import importlib.util

import pytest
import torch

from pet_calc.kernels.edge_embedding import dispatch, reference
from pet_calc.kernels.edge_embedding.analytic import gradients
from pet_calc.kernels.edge_embedding.reference import Encoding

#: Name: edges, species, width of the tokens, Gaussians, smooth weight.
CASES = {
    "cartesian": (37, 3, 5, 0, True),
    "radial": (70, 2, 70, 9, True),
    "radial-cosine": (5, 1, 17, 48, False),
    "none": (0, 2, 8, 4, True),
}
CUTOFF = 2.5


def make(case, seed=0, dtype=torch.float64):
    """Arguments of the operation, the encoding last; some edges are padding, one is beyond R."""
    n, species, d, radial, smooth = CASES[case]
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    vectors = random(n, 3)
    vectors[3:4] *= 10.0
    mask = torch.rand(n, generator=g) > 0.2
    vectors[~mask] = 0.0
    rows = 7 + radial if radial else 4
    tensors = [
        vectors,
        mask,
        torch.randint(species, (n,), generator=g),
        CUTOFF * (1.0 + 0.1 * random(n)),
        torch.linspace(0.0, CUTOFF, radial, dtype=torch.float64),
        random(species, d),
        random(rows, d),
    ]
    tensors = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
    return tensors, Encoding(radial > 0, CUTOFF / max(1, radial), 1.5, smooth)


def derivatives(kernel, tensors, encoding, of=(0, 3, 5, 6)):
    """Values, gradients without and with a graph, and gradients of a function of the latter."""
    inputs = [t.clone().requires_grad_() if k in of else t for k, t in enumerate(tensors)]
    leaves = [inputs[k] for k in of]

    def scalar():
        hidden, weight = kernel(*inputs, encoding)
        return (hidden.sin() * 1.3).sum() + (weight * 0.7).sin().sum(), hidden, weight

    total, hidden, weight = scalar()
    plain = torch.autograd.grad(total, leaves)
    first = torch.autograd.grad(scalar()[0], leaves, create_graph=True)
    mixed = sum((g.sin() * (k + 1)).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(mixed, leaves)
    return [hidden.detach(), weight.detach(), *plain, *(g.detach() for g in first), *second]


def deviation(found, expected):
    """Largest deviation, relative to the largest element of each tensor where that exceeds 1."""
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        if y.numel():
            worst = max(worst, float((x - y).abs().max() / y.abs().max().clamp_min(1.0)))
    return worst


@pytest.mark.parametrize("case", CASES)
def test_written_gradients_are_those_of_autograd(case):
    tensors, encoding = make(case)
    of = (0, 3, 5, 6)
    inputs = [t.clone().requires_grad_() if k in of else t for k, t in enumerate(tensors)]
    out = reference.edge_embedding(*inputs, encoding)
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(o.shape, dtype=o.dtype, generator=g) for o in out]
    expected = torch.autograd.grad(out, [inputs[k] for k in of], grads)
    found = gradients(*tensors, encoding, *grads)
    assert deviation(found, expected) < 1e-12
    if len(tensors[0]):
        found[0][tensors[1]] += 1e-9  # control
        assert deviation(found, expected) > 1e-12


def test_padding_is_the_row_of_the_table():
    tensors, encoding = make("radial")
    hidden, weight = reference.edge_embedding(*tensors, encoding)
    padding = ~tensors[1]
    assert torch.equal(hidden[padding], tensors[5][tensors[2]][padding])
    assert not weight[padding].any()
    assert weight[tensors[1]].any()


def test_refusals(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tensors, encoding = make("radial")
    with pytest.raises(ValueError, match="cannot be used"):
        dispatch.edge_embedding(*tensors, encoding, backend="triton")
    with pytest.raises(ValueError, match="`backend` must be 'auto'"):
        dispatch.edge_embedding(*tensors, encoding, backend="cupy")
    a, b = (dispatch.edge_embedding(*tensors, encoding, backend=k) for k in ("auto", "torch"))
    assert torch.equal(a[0], b[0])
    assert not dispatch.fused_embedding(tensors[0], 16)
    if importlib.util.find_spec("triton") is not None:
        assert "not on cpu" in dispatch.triton_refusal(tensors[0], 16)
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        assert dispatch.triton_refusal(tensors[0], 16) is None
        assert "not torch.float16" in dispatch.triton_refusal(tensors[0].half(), 16)
        assert "128 numbers at most, not 129" in dispatch.triton_refusal(tensors[0], 129)


def test_check_at_first_use():
    tensors, encoding = make("radial", dtype=torch.float32)

    def wrong(*arguments):
        hidden, weight = reference.edge_embedding(*arguments)
        return hidden, 1.001 * weight

    def broken(*arguments):
        raise RuntimeError("out of shared memory")

    def check(kernel, tolerance=1e-4):
        return dispatch.deviation(kernel, tuple(tensors), encoding, tolerance)

    assert check(reference.edge_embedding) is None
    assert "weight deviates by 1.0e-03" in check(wrong)
    assert check(wrong, 2e-2) is None
    assert "out of shared memory" in check(broken)
