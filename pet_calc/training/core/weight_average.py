"""Exponential moving average of the weights."""

from __future__ import annotations

from torch import Tensor, nn


def update_average(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Move the averaged parameters towards the model's, in place.

    The effective decay rises as (1 + step) / (10 + step) until it reaches `decay`, so that the
    random initial weights are forgotten early.
    """
    effective = min(decay, (1.0 + step) / (10.0 + step))
    for name, parameter in model.named_parameters():
        average[name].lerp_(parameter.detach(), 1.0 - effective)


def start_average(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the model's parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}
