"""Cutoff attention against a loop, and its derivatives."""

import math

import pytest
import torch
from torch import Tensor

from pet_calc.kernels.cutoff_attention import cutoff_attention

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs(n: int, h: int, t: int, d: int, *, grad: bool = False) -> Inputs:
    g = torch.Generator().manual_seed(n + 10 * h + 100 * t)
    q, k, v = (
        torch.randn(n, h, t, d, dtype=torch.float64, generator=g).requires_grad_(grad)
        for _ in range(3)
    )
    weight = torch.rand(n, t, dtype=torch.float64, generator=g)
    return q, k, v, weight.log().requires_grad_(grad)


def loop(q: Tensor, k: Tensor, v: Tensor, log_weight: Tensor, scale: float) -> Tensor:
    out = torch.zeros_like(v)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                total = 0.0
                for j in range(q.shape[2]):
                    logit = scale * float(q[n, h, i] @ k[n, h, j])
                    weight = math.exp(float(log_weight[n, j])) * math.exp(logit)
                    out[n, h, i] += weight * v[n, h, j]
                    total += weight
                out[n, h, i] /= total
    return out


def pack(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Side by side, as one linear layer gives them: (n, t, 3 h d)."""
    n, h, t, d = q.shape
    return torch.cat([x.transpose(1, 2).reshape(n, t, h * d) for x in (q, k, v)], dim=-1)


def unpacked(out: Tensor, h: int) -> Tensor:
    n, t, width = out.shape
    return out.view(n, t, h, width // h).transpose(1, 2)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 3, 5, 4), (3, 1, 7, 2)])
def test_equals_the_loop(size: tuple[int, int, int, int]) -> None:
    q, k, v, w = inputs(*size)
    out = cutoff_attention(pack(q, k, v), w, size[1], 0.3)
    assert torch.allclose(unpacked(out, size[1]), loop(q, k, v, w, 0.3), atol=1e-14)


def test_hidden_token_is_as_good_as_absent() -> None:
    q, k, v, w = inputs(2, 2, 6, 4)
    w[:, 4:] = -1e9
    shown = cutoff_attention(pack(q, k, v), w, 2, 0.5)[:, :4]
    alone = cutoff_attention(pack(*(x[:, :, :4] for x in (q, k, v))), w[:, :4], 2, 0.5)
    assert torch.allclose(shown, alone, rtol=0, atol=1e-15)
    changed = v.clone()
    changed[:, :, 4:] = 1e6
    assert torch.equal(cutoff_attention(pack(q, k, changed), w, 2, 0.5)[:, :4], shown)


def test_no_atoms() -> None:
    assert cutoff_attention(torch.zeros(0, 3, 24), torch.zeros(0, 3), 2, 1.0).shape == (0, 3, 8)
