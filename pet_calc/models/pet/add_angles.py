"""Attention that sees angles, on a PET that was trained without."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.layers import AngularAttention
from pet_calc.models.pet.model import PET


def adds_angles(config: PETConfig, to: PETConfig) -> bool:
    """Whether `config` is `to` with angles in the attention, with or without vectors in tokens."""
    encodings = (to.input_encoding, "distance" if to.input_encoding == "radial" else None)
    same = replace(config, input_encoding=to.input_encoding, angular_degree=0)
    return config.angular_degree > 0 and config.input_encoding in encodings and same == to


def with_angles(model: PET, config: PETConfig) -> PET:
    """A copy whose attention sees angles, which weigh nothing at first.

    With the input encoding of `model` it begins as the same function. With "distance" in the
    place of "radial" the vectors are left out of the tokens, and the training has to make up
    for what they told.

    Parameters
    ----------
    model : PET
    config : PETConfig
        That of `model`, but for angles.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extended = PET(config, dtype=model.dtype)
    state = extended.state_dict()
    for name, value in model.state_dict().items():
        if name.endswith("attention.input_linear.weight"):
            state[name] = beginning(value, state[name], config)
        elif name.endswith("attention.input_linear.bias"):
            state[name] = beginning(value, torch.zeros_like(state[name]), config)
        elif state[name].shape != value.shape:  # the embedding of the geometry
            state[name] = torch.cat([value[:, 3:4], value[:, 7:]], dim=1)
        else:
            state[name] = value
    extended.load_state_dict(state)
    for layer in extended.modules():
        if isinstance(layer, AngularAttention):
            torch.nn.init.zeros_(layer.invariant_linear.weight)
    return extended.requires_grad_(False).eval()


def beginning(old: Tensor, new: Tensor, config: PETConfig) -> Tensor:
    """Old queries, keys and values before new strengths, of which those of queries are zero."""
    strengths = new[len(old) :].clone()
    strengths[: config.num_heads * config.angular_degree] = 0.0
    return torch.cat([old, strengths])
