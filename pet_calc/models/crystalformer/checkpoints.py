"""Checkpoints of the public Crystalformer code (https://github.com/omron-sinicx/crystalformer).

A Lightning checkpoint holds the weights of the last step under ``model.``, their average over the
last epochs, which the paper evaluates, under ``swa_model.module.``, and the scale and mean of the
standardized targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pet_calc.errors import CheckpointError
from pet_calc.models.crystalformer.config import CrystalformerConfig

AVERAGED: Final = "swa_model.module."
PLAIN: Final = "model."

#: Options of the public code that change the network in ways that are not supported here.
_REQUIRED: Final[dict[str, object]] = {
    "exclude_self": False,
    "gauss_state": "q",
    "norm_func_mode": 0,
    "normalize_gauss": True,
    "pooling": "avr",
    "pre_pooling_op": "no",
    "t_activation": "relu",
    "use_cgcnn_feat": False,
    "value_pe_condproj": "no",
    "value_pe_headed": True,
    "value_pe_wave_real": 0,
    "value_pe_wave_reci": 0,
    "value_pe_dist_reci": 0,
    "value_pe_width_scale": 1.0,
}


@dataclass(frozen=True, eq=False)
class ImportedCrystalformer:
    """A public checkpoint in this package's terms.

    Attributes
    ----------
    config : CrystalformerConfig
    state : dict
        State dict of `Crystalformer`.
    averaged : bool
        Whether these are the averaged weights.
    """

    config: CrystalformerConfig
    state: dict[str, Tensor]
    averaged: bool


def is_crystalformer(content: Mapping[str, Any]) -> bool:
    """Whether the dictionary of a checkpoint file is one of the public Crystalformer code."""
    state = content.get("state_dict")
    return isinstance(state, dict) and any(
        isinstance(name, str) and name.endswith("self_attn.lattice_pos_weights") for name in state
    )


def from_dictionary(checkpoint: Mapping[str, Any]) -> ImportedCrystalformer:
    """The model in the dictionary of a checkpoint file.

    Raises
    ------
    CheckpointError
        If it is of another architecture, or of a variant that is not supported.
    """
    if not is_crystalformer(checkpoint):
        raise CheckpointError(
            "a Crystalformer checkpoint must hold 'state_dict' with lattice_pos_weights; this one "
            f"holds {sorted(map(str, checkpoint))[:8]}"
        )
    everything: dict[str, Tensor] = checkpoint["state_dict"]
    averaged = any(name.startswith(AVERAGED) for name in everything)
    prefix = AVERAGED if averaged else PLAIN
    public = {
        name.removeprefix(prefix): tensor
        for name, tensor in everything.items()
        if name.startswith(prefix)
    }
    found = checkpoint.get("hyper_parameters")
    options = dict(found) if isinstance(found, dict) else {}
    config = config_of(public, options)
    state = state_of(public, config)
    for name, default in (("target_std", 1.0), ("target_mean", 0.0)):
        value = everything.get(name, torch.full((len(config.targets),), default))
        state["target_scale" if name == "target_std" else name] = value.double().reshape(-1)
    return ImportedCrystalformer(config, state, averaged)


def config_of(public: Mapping[str, Tensor], options: Mapping[str, Any]) -> CrystalformerConfig:
    """Architecture of a public state dict, from its shapes and the recorded options."""
    for name, expected in _REQUIRED.items():
        value = options.get(name, expected)
        if value != expected:
            raise CheckpointError(
                f"a public Crystalformer must have {name} = {expected!r} to be read here, but this "
                f"one has {value!r}"
            )
    function, _, slope = str(options.get("positive_func", "elu=0.1")).partition("=")
    if function != "elu":
        raise CheckpointError(f"`positive_func` must be 'elu=...', got {function!r}")
    floors = [options.get(n, 0.5) for n in ("gauss_lb_real", "gauss_lb_reci")]
    if floors[0] != floors[1]:
        raise CheckpointError(f"both lower bounds of the widths must be equal, got {floors}")
    try:
        layers = 1 + max(int(n.split(".")[2]) for n in public if n.startswith("encoder.layers."))
        d_model, n_elements = public["input_embeddings.weight"].shape
        feedforward = len(public["encoder.layers.0.linear1.weight"])
        head, n_targets = len(public["mlp.0.weight"]), len(public["mlp.3.weight"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint lacks a tensor of the public Crystalformer ({error}), or has another "
            f"number of layers in its readout"
        ) from error
    encoding = public.get("encoder.layers.0.self_attn.pe_dist_proj")
    width = first(options.get("scale_real", 1.4), "scale_real")
    reach = float(options.get("value_pe_dist_max", -10.0))
    targets = options.get("targets", [f"property{k}" for k in range(n_targets)])
    domain = options.get("domain", "real")
    try:
        return CrystalformerConfig.published(
            elements=tuple(range(1, n_elements + 1)),
            d_model=d_model,
            num_heads=options.get("head_num", 8),
            num_layers=layers,
            d_feedforward=feedforward,
            d_head=head,
            gaussian_width=width,
            gaussian_floor=floors[0],
            gaussian_slope=float(slope or 1.0),
            # the encoding is used by layers in real space only
            num_radial=0 if encoding is None or domain == "reci" else encoding.shape[-1],
            radial_max=reach if reach > 0 else -reach * width,
            domain=domain,
            reciprocal_width=first(options.get("scale_reci", 2.2), "scale_reci"),
            targets=(targets,) if isinstance(targets, str) else tuple(targets),
        )
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's options do not fit: {error}") from error


def first(value: Any, name: str) -> float:
    """The number in an option that may be a list with one entry per layer, all equal."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not values or any(v != values[0] for v in values):
        raise CheckpointError(f"`{name}` must be the same in all layers, got {value}")
    return float(values[0])


def state_of(public: Mapping[str, Tensor], config: CrystalformerConfig) -> dict[str, Tensor]:
    """State dict of `Crystalformer`, without the targets' scale and mean, from a public one."""
    h = config.num_heads
    state = {"embedding.weight": public["input_embeddings.weight"].T}
    try:
        for k in range(config.num_layers):
            old, new = f"encoder.layers.{k}.", f"blocks.{k}."
            attention = f"{old}self_attn."
            for name in ("linear1", "linear2"):
                for kind in ("weight", "bias"):
                    state[f"{new}{name}.{kind}"] = public[f"{old}{name}.{kind}"]
            new += "attention."
            state[f"{new}projection.weight"] = torch.cat(
                [public[f"{attention}{x}_proj_weight"] for x in "qkv"]
            )
            state[f"{new}projection.bias"] = public[f"{attention}in_proj_bias"]
            for kind in ("weight", "bias"):
                state[f"{new}output.{kind}"] = public[f"{attention}out_proj.{kind}"]
            state[f"{new}width_weight"] = public[f"{attention}lattice_pos_weights"].reshape(h, -1)
            state[f"{new}gauss_scale"] = public[f"{attention}gauss_scale"]
            if float(state[f"{new}gauss_scale"][0]) <= 0:
                raise CheckpointError(
                    "the scale of the widths must have been frozen by a training step, but "
                    f"{attention}gauss_scale is zero; such a model depends on its batch"
                )
            n_real = config.real_heads[k]
            if config.num_radial and n_real:
                state[f"{new}value_encoding"] = public[f"{attention}pe_dist_proj"][0, :n_real]
        for old, new in (("mlp.0", "head.0"), ("mlp.3", "head.2")):
            for kind in ("weight", "bias"):
                state[f"{new}.{kind}"] = public[f"{old}.{kind}"]
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint lacks the tensor {error} of the public Crystalformer"
        ) from error
    return {name: tensor.contiguous() for name, tensor in state.items()}
