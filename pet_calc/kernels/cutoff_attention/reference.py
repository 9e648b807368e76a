"""Reference implementation of the cutoff attention; it defines the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def cutoff_attention(packed: Tensor, log_weight: Tensor, heads: int, scale: float) -> Tensor:
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
    packed : Tensor, shape (n_atoms, n_tokens, 3 width)
        Queries, keys and values side by side, each with its heads side by side.
    log_weight : Tensor, shape (n_atoms, n_tokens)
        A large negative number hides a token from all others.
    heads : int
    scale : float

    Returns
    -------
    Tensor, shape (n_atoms, n_tokens, width)
        Differentiable any number of times.
    """
    n, t, width = packed.shape
    split = packed.reshape(n, t, 3, heads, width // (3 * heads))
    q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # (n_atoms, heads, n_tokens, width / heads)
    logits = scale * q @ k.transpose(-1, -2) + log_weight[:, None, None, :]
    out = torch.softmax(logits, dim=-1) @ v
    return out.transpose(1, 2).reshape(n, t, width // 3)
