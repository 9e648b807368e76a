"""The network of a property model in training: its start, its loss and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.models import (
    CrystalGraph,
    PotentialTerm,
    PropertyConfig,
    PropertyEnsemble,
    PropertyModel,
    Target,
)
from pet_calc.crystals.models.backbone import WeightedBatchNorm
from pet_calc.crystals.models.heads import LARGEST_LOG
from pet_calc.crystals.training.property_config import PropertyTraining
from pet_calc.crystals.training.property_data import CrystalSet, batches, gather
from pet_calc.pretrained import find_property_model
from pet_calc.training.core.config_reader import build

#: Weight of the loss of a learnt scale b beside that of its value.
SCALE_WEIGHT: Final = 0.2


def new_network(
    config: PropertyTraining,
    member: int,
    elements: tuple[int, ...],
    source: PropertyEnsemble | None,
) -> PropertyModel:
    """The network that a member starts as; a member of `source` if that is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + member)
        values = config.property | {"targets": config.targets, "elements": elements}
        if (term := config.property.get("potential")) is not None:
            values["potential"] = build(PotentialTerm, term, "property.potential")
        network = PropertyModel(build(PropertyConfig, values, "property"))
    if source is not None:
        start_from(network, source.networks[member % len(source.networks)])
    return network


def load_source(name: str) -> PropertyEnsemble:
    """The shipped model, or that of a folder, that a fine-tuning starts from."""
    entry = find_property_model(name)
    if entry is not None:
        return load_property_model(entry.folder, entry.sha256)
    return load_property_model(Path(name).expanduser())


def start_from(model: PropertyModel, initial: PropertyModel) -> None:
    """Copy the weights of a trained network, and what reads the targets that both have.

    Raises
    ------
    ValueError
        If the networks differ in more than their targets.
    """
    for option in ("backbone", "options", "hidden", "scales"):
        own, theirs = getattr(model.config, option), getattr(initial.config, option)
        if own != theirs:
            raise ValueError(
                f"`{option}` in [property] must be that of the model to start from, {theirs!r}, "
                f"got {own!r}"
            )
    last = {n: t for n, t in initial.state_dict().items() if not n.startswith(("last.", "target"))}
    model.load_state_dict(model.state_dict() | last)
    n, n_theirs = len(model.config.targets), len(initial.config.targets)
    with torch.no_grad():
        for k, j in shared_targets(model.config, initial.config):
            model.target_mean[k] = initial.target_mean[j]
            model.target_scale[k] = initial.target_scale[j]
            rows = [(k, j), (n + k, n_theirs + j)] if model.config.scales else [(k, j)]
            for own, theirs in rows:
                model.last.weight[own] = initial.last.weight[theirs]
                model.last.bias[own] = initial.last.bias[theirs]


def shared_targets(own: PropertyConfig, theirs: PropertyConfig) -> list[tuple[int, int]]:
    """Index in both of each target that is of the same name and kind."""
    places = {(t.name, t.kind): j for j, t in enumerate(theirs.targets)}
    return [
        (k, places[t.name, t.kind]) for k, t in enumerate(own.targets) if (t.name, t.kind) in places
    ]


def loss_of(model: PropertyModel, graph: CrystalGraph, targets: Tensor, kind: str) -> Tensor:
    r"""Weighted sum over targets of the mean loss of the crystals that have them.

    Where the model learns the scales b of its errors e, :math:`0.2 \langle |e| / b + \ln b\rangle`
    is added, which does not change what the values learn but through the features.
    """
    n = len(model.config.targets)
    out = model(graph)
    logarithms = out[:, n:].clamp(-LARGEST_LOG, LARGEST_LOG)
    wanted = ((targets - model.target_mean) / model.target_scale).to(out.dtype)
    total = out.new_zeros(())
    for k, t in enumerate(model.config.targets):
        has = torch.isfinite(targets[:, k])
        if not bool(has.any()):
            continue
        x, y = out[has, k], wanted[has, k]
        if t.kind == "class":
            part = functional.binary_cross_entropy_with_logits(x, y)
        else:
            part = (x - y).abs().mean() if kind == "l1" else (x - y).square().mean()
            if model.config.scales:
                # that of a Laplace distribution; the error is given, so that no crystal is given up
                scale = logarithms[has, k]
                size = (x - y).detach().abs()
                part = part + SCALE_WEIGHT * (size * (-scale).exp() + scale).mean()
        total = total + t.weight * part
    return total


@torch.no_grad()
def predict_all(model: PropertyModel, data: CrystalSet, size: int = 256) -> Tensor:
    """Properties (n, n_targets), float64, of a set."""
    model.eval()
    return torch.cat([
        model.read_out(model.last_features(gather(data, rows)[0])) for rows in batches(data, size)
    ])  # fmt: skip


def errors_of(kinds: Sequence[Target], values: Tensor, targets: Tensor) -> dict[str, float]:
    """Mean absolute error of each target in what is learned; of classes the share of right ones."""
    found = {}
    for k, t in enumerate(kinds):
        has = torch.isfinite(targets[:, k])
        if not bool(has.any()):
            continue
        x, y = values[has, k], targets[has, k]
        score = (
            ((x > 0) == (y > 0.5)).double().mean() if t.kind == "class" else (x - y).abs().mean()
        )
        found[t.name] = float(score)
    return found


def normalizations(model: PropertyModel) -> list[WeightedBatchNorm]:
    """The batch normalizations of a network."""
    return [m for m in model.modules() if isinstance(m, WeightedBatchNorm)]


def refresh_statistics(model: PropertyModel, data: CrystalSet, size: int) -> None:
    """Recompute the statistics of all batch normalizations for the weights as they are."""
    norms = normalizations(model)
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    model.train()
    with torch.no_grad():
        for rows in batches(data, size, np.random.default_rng(0)):
            model(gather(data, rows)[0])
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.eval()
