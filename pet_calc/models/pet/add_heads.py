"""Further energy heads on a PET that has been trained: one for another level of theory."""

from __future__ import annotations

from dataclasses import replace

import torch

from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.model import PET

#: Buffers with one row for each head after the first.
BY_HEAD = ("variant_reference_energies", "variant_scales")


def adds_heads(config: PETConfig, to: PETConfig) -> bool:
    """Whether `config` is `to` with further energy heads behind those that it has."""
    names = config.energy_heads[: len(to.energy_heads)]
    same = replace(config, energy_heads=to.energy_heads, energy_head=to.energy_head)
    return names == to.energy_heads and same == to


def with_new_heads(model: PET, config: PETConfig) -> PET:
    """A copy with the energy heads of `config`; the new ones begin as copies of the one in use.

    Parameters
    ----------
    model : PET
    config : PETConfig
        That of `model`, with further `energy_heads`.
    """
    with torch.random.fork_rng(devices=[]):
        extended = PET(config, dtype=model.dtype)
    state = {k: v for k, v in model.state_dict().items() if k not in BY_HEAD}
    extended.load_state_dict(state, strict=False)
    heads = model.config.energy_heads
    for name in config.energy_heads:
        source = model.with_energy_head(name) if name in heads else model
        target = extended.with_energy_head(name)
        for own, given in zip(target.head_constants(), source.head_constants(), strict=True):
            own.copy_(given)
        if name in heads:
            continue
        for own_pair, pair in zip(
            target.readouts(name), source.readouts(source.energy_head), strict=True
        ):
            for layer, given_layer in zip(own_pair, pair, strict=True):
                layer.load_state_dict(given_layer.state_dict())
    return extended.requires_grad_(False).eval()
