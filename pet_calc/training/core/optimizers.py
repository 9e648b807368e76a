"""Optimizers by name, and the step that all trainings take."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pet_calc.errors import SimulationError


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and what surrounds it.

    Attributes
    ----------
    name : {"adam", "soap"}
    betas : tuple of float
    weight_decay : float
        Decoupled.
    precondition_interval : int
        Steps between refreshes of SOAP's eigenbases.
    gradient_clip : float
        Largest norm of the gradient.
    ema_decay : float
        Decay per step of the averaged weights, which are evaluated and saved.
    """

    name: Literal["adam", "soap"] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    precondition_interval: int = 10
    gradient_clip: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.name not in ("adam", "soap"):
            raise ValueError(f"`optimizer.name` must be 'adam' or 'soap', got {self.name!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must lie in [0, 1), got {self.ema_decay}")


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimizer of a configuration; the learning rate is set at every step.

    "adam" is AdamW [arXiv:1711.05101]; "soap" is Adam in the eigenbases of Shampoo's
    preconditioner [arXiv:2409.11321], from the package pytorch-optimizer (extra ``train``).
    """
    if config.name == "adam":
        return torch.optim.AdamW(
            parameters, lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
    try:
        from pytorch_optimizer import SOAP
    except ImportError as error:
        raise ImportError(
            "the optimizer 'soap' needs the package pytorch-optimizer; install it with "
            "pip install 'pet-calc[train]', or set optimizer.name = \"adam\""
        ) from error
    return SOAP(
        parameters,
        lr=0.0,
        betas=config.betas,
        weight_decay=config.weight_decay,
        precondition_frequency=config.precondition_interval,
    )


def take_step(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter],
    loss: float,
    *,
    rate: float,
    clip: float,
    when: str,
) -> None:
    """Clip the gradients that are there, and let the optimizer take a step.

    Parameters
    ----------
    optimizer : Optimizer
    parameters : iterable of nn.Parameter
        With the gradients of the loss.
    loss : float
    rate : float
        Learning rate of the step.
    clip : float
        Largest norm of the gradient.
    when : str
        Where the training is, for error messages: "at step 3".

    Raises
    ------
    SimulationError
        If the loss or the norm of its gradient is not finite.
    """
    if not math.isfinite(loss):
        raise SimulationError(
            f"the training loss is {loss} {when}; lower the learning rate or check the labels (the "
            f"last checkpoint is intact)"
        )
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not torch.isfinite(norm):  # clipping would make every weight NaN
        raise SimulationError(
            f"the gradient of the loss is {norm.item()} {when}, where the loss is {loss:.4g}; "
            f"lower the learning rate (the last checkpoint is intact)"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
