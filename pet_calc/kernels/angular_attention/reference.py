"""Reference implementation of the angular attention; it defines the operation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pet_calc.kernels.cutoff_attention import reference


def angular_attention(
    made: Tensor, harmonics: Tensor, log_weight: Tensor, heads: int, scale: float, degree: int,
    attention: Callable[[Tensor, Tensor, int, float], Tensor] = reference.cutoff_attention,
) -> Tensor:  # fmt: skip
    r"""The cutoff attention of heads that carry spherical harmonics beside their components.

    .. math::
        \text{logit}_{qk} = s \Big( q_q \cdot k_k + \sum_{lm} a_{ql} Y_{qlm} \, b_{kl} Y_{klm}
                            \Big), \qquad A_{qlm} = \sum_k p_{qk} \, c_{kl} \, Y_{klm}

    with the weights p of the cutoff attention. Beside its usual result it has the invariants
    :math:`\sum_m Y_{qlm} A_{qlm}` and :math:`\sum_m A_{qlm}^2` of each head and degree.

    Parameters
    ----------
    made : Tensor, shape (n_atoms, n_tokens, 3 width + 3 heads degree)
        Queries, keys and values side by side, each with its heads side by side; then their
        strengths a, b and c, each with its heads, each with its degrees side by side.
    harmonics : Tensor, shape (n_atoms, n_tokens, degree (degree + 2))
        Y of the degrees 1 to `degree`, one after the other.
    log_weight : Tensor, shape (n_atoms, n_tokens)
        A large negative number hides a token from all others.
    heads : int
    scale : float
        s.
    degree : int
    attention : callable
        The cutoff attention of packed queries, keys and values.

    Returns
    -------
    Tensor, shape (n_atoms, n_tokens, width + 2 heads degree)
        The result of the attention, then the first and the second invariants.
    """
    n, t, _ = made.shape
    m = harmonics.shape[-1]
    rest = 3 * heads * degree
    plain, strength = made.split([made.shape[-1] - rest, rest], dim=-1)
    width = plain.shape[-1] // (3 * heads)
    share = spread(degree, made)
    carried = (strength.reshape(n, t, 3, heads, degree) @ share) * harmonics[:, :, None, None, :]
    packed = torch.cat([plain.reshape(n, t, 3, heads, width), carried], dim=-1)
    found = attention(packed.view(n, t, 3 * heads * (width + m)), log_weight, heads, scale)
    attended, moments = found.view(n, t, heads, width + m).split([width, m], dim=-1)
    both = torch.stack([moments * harmonics[:, :, None, :], moments.square()], dim=2)
    invariants = (both @ share.T).view(n, t, 2 * heads * degree)
    return torch.cat([attended.reshape(n, t, heads * width), invariants], dim=-1)


def spread(degree: int, like: Tensor) -> Tensor:
    """Matrix (degree, n_harmonics) that gives each harmonic the number of its degree."""
    # made on the device of `like`, without a copy that it would have to wait for
    count = torch.arange(1, degree * (degree + 2) + 1, device=like.device)
    # harmonics of degree l stand in the places l², ..., (l + 1)² - 1
    found = count.to(torch.float32).sqrt().floor()
    degrees = torch.arange(1, degree + 1, device=like.device)
    return (found == degrees[:, None]).to(like.dtype)
