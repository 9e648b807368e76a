"""The public Crystalformer's weights from a closed formula, and the crystals of its outputs."""

import json
import math

import numpy as np
import torch

from pet_calc.geometry import System
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.models.crystalformer.checkpoints import config_of, state_of

MODES = {
    "default": {"domain": "real"},
    "simplified_noVPE": {"domain": "real"},
    "multihead": {"domain": "multihead"},
    "real-reci": {"domain": "real-reci"},
}


def splitmix64(x):
    """Hash of 64-bit integers."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def public_state(folder, mode, gauss_scale):
    """State dict of the public model in float64, with its frozen scales of the widths."""
    shapes = json.loads((folder / "crystalformer_state_dict_shapes.json").read_text())
    names = sorted(n for n in shapes if mode == "default" or "pe_dist_proj" not in n)
    state = {}
    for t, name in enumerate(names):
        shape = shapes[name]
        size = math.prod(shape)
        if name.endswith("gauss_scale"):
            layer = int(name.split(".")[2])
            state[name] = torch.tensor(gauss_scale[layer], dtype=torch.float64)
            continue
        k = np.arange(size, dtype=np.uint64) + (np.uint64(t) << np.uint64(32))
        u = (splitmix64(k) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
        scale = math.sqrt(3 / shape[-1]) if len(shape) > 1 else 0.1
        if name.endswith("lattice_pos_weights"):
            scale = math.sqrt(3 / 16)
        if name.endswith("atten_scale"):
            scale = 0.0
        state[name] = torch.from_numpy(scale * u).reshape(shape)
    return state


def golden(folder):
    """Content of the reference file."""
    return json.loads((folder / "crystalformer.json").read_text())


def crystal(entry):
    """A crystal of the reference file."""
    cell = torch.tensor(entry["lattice"], dtype=torch.float64)
    positions = torch.tensor(entry["frac"], dtype=torch.float64) @ cell
    return System.single(positions, torch.tensor(entry["Z"]), cell, (True, True, True))


def published(folder, mode, **changes):
    """The model of a mode in float64, with any changes of its options."""
    from dataclasses import replace

    state = public_state(folder, mode, golden(folder)[mode]["gauss_scale"])
    config = config_of(state, MODES[mode])
    model = Crystalformer(replace(config, **changes), dtype=torch.float64)
    state = state_of(state, config)
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert set(missing) == {"target_scale", "target_mean"}
    return model.requires_grad_(False)
