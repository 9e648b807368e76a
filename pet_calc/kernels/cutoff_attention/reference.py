"""Reference implementation of the cutoff attention; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def cutoff_attention(
    query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor, scale: float
) -> Tensor:
    r"""Attention over the tokens of one atom with a multiplicative weight on every key.

    .. math:: o_q = \frac{\sum_k \varphi_k\, e^{s\, q_q \cdot k_k} v_k}
                         {\sum_k \varphi_k\, e^{s\, q_q \cdot k_k}}

    ================  ==========  ==================================================
    symbol            variable    meaning
    ================  ==========  ==================================================
    :math:`s`         scale       inverse of sqrt(head width) times the temperature
    :math:`\varphi`   log_weight  natural logarithm of the key's cutoff weight
    ================  ==========  ==================================================

    Parameters
    ----------
    query, key, value : Tensor, shape (n_atoms, n_heads, n_tokens, d_head)
    log_weight : Tensor, shape (n_atoms, n_tokens)
        A large negative number hides a token from all others.
    scale : float

    Returns
    -------
    Tensor, shape (n_atoms, n_heads, n_tokens, d_head)
        Differentiable any number of times.
    """
    n, h, t, d = query.shape
    q, k, v = (x.reshape(n * h, t, d) for x in (query, key, value))
    bias = log_weight[:, None, None, :].expand(n, h, 1, t).reshape(n * h, 1, t)
    logits = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(logits, dim=-1), v).view(n, h, t, d)
