"""The edge embedding in torch: its written gradients, its limits, its check at first use."""

import torch

from pet_calc.kernels.edge_embedding import reference
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


def test_padding_is_the_row_of_the_table():
    tensors, encoding = make("radial")
    hidden, weight = reference.edge_embedding(*tensors, encoding)
    padding = ~tensors[1]
    assert torch.equal(hidden[padding], tensors[5][tensors[2]][padding])
    assert not weight[padding].any()
    assert weight[tensors[1]].any()
