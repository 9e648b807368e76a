r"""Updates of low rank of linear layers [LoRA, Hu et al., arXiv:2106.09685].

The weight W (n_out, n_in) of a layer is left as it is and seen as

.. math:: W + \frac{\alpha}{r} B A

with A (r, n_in) drawn at random and B (n_out, r) zero at first, which alone are trained. What is
saved has the sums as its weights, and is a model like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """W -> W + (alpha / rank) B A; the rank is at most that of W.

    Parameters
    ----------
    weight : Tensor, shape (n_out, n_in)
        That it will act on.
    rank : int
    alpha : float
    generator : torch.Generator
        Draws A from a normal distribution of variance 1 / n_in.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        r = min(rank, n_out, n_in)
        drawn = torch.randn(r, n_in, generator=generator, dtype=torch.float64) / n_in**0.5
        self.down = nn.Parameter(drawn.to(weight))
        self.up = nn.Parameter(weight.new_zeros(n_out, r))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight."""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add_low_rank(model: nn.Module, rank: int, alpha: float, seed: int) -> None:
    """Freeze a model and give each of its linear layers an update that can be trained.

    Parameters
    ----------
    model : nn.Module
        Changed in place; its output stays the same.
    rank : int
        Largest rank of an update.
    alpha : float
        See `LowRankUpdate`.
    seed : int
        Of the first factors.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for linear in linears:
        update = LowRankUpdate(linear.weight, rank, alpha, generator)
        parametrize.register_parametrization(linear, "weight", update)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """State dict of the ordinary model with the updates in its weights.

    Of a model without updates it is the state dict.
    """
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            inside = f"{name}.parametrizations."
            state = {k: t for k, t in state.items() if not k.startswith(inside)}
            state[f"{name}.weight"] = module.weight.detach()
    return state
