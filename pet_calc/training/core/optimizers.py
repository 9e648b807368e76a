"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from pet_calc.training.potentials.config import OptimizerConfig


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
