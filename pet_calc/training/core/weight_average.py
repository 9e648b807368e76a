"""Averages of the weights over the steps of a training."""

from __future__ import annotations

from torch import Tensor, nn


def start_average(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the model's parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def move_average(average: dict[str, Tensor], model: nn.Module, share: float) -> None:
    """Move the averaged parameters by a share of the way to the model's, in place."""
    for name, parameter in model.named_parameters():
        average[name].lerp_(parameter.detach(), share)


def update_exponential(
    average: dict[str, Tensor], model: nn.Module, step: int, decay: float
) -> None:
    """Exponential moving average (EMA) after a step, 0-based.

    The effective decay rises as (1 + step) / (10 + step) until it reaches `decay`, so that the
    random initial weights are forgotten early.
    """
    move_average(average, model, 1.0 - min(decay, (1.0 + step) / (10.0 + step)))


def update_mean(average: dict[str, Tensor], model: nn.Module, count: int) -> None:
    """Equal average (SWA) of `count` states of the model, of which this is the last."""
    move_average(average, model, 1.0 / count)
