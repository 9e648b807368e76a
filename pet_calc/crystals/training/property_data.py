"""Crystals as property models read them: graphs, targets, batches of similar size."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from pet_calc.crystals.io.graphs import graph_of
from pet_calc.crystals.models import CrystalGraph, PropertyConfig, PropertyModel, Target
from pet_calc.crystals.properties.potential_estimates import PotentialEstimates
from pet_calc.errors import DatasetError
from pet_calc.io.data.crystals import LabeledCrystal

NDArrayInt = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class CrystalSet:
    """Graphs and targets.

    Attributes
    ----------
    graphs : list of CrystalGraph
    targets : Tensor, shape (n, n_targets), float64
        In a logarithm where the target is one; NaN where it is not known.
    energies : Tensor, optional, shape (n,), float64
        Per atom, of the potential that an ensemble asks for; see `with_energies`.
    """

    graphs: list[CrystalGraph]
    targets: Tensor
    energies: Tensor | None = None


def crystal_set(
    crystals: Sequence[LabeledCrystal],
    model: PropertyModel,
    on_graph: Callable[[], None] = lambda: None,
) -> CrystalSet:
    """Crystals as a model reads them."""
    config = model.encoder.graph_config
    graphs = []
    for c in crystals:
        graphs.append(graph_of(c.atoms, config, merge=True).to(torch.float32))
        on_graph()
    return CrystalSet(graphs, target_table(crystals, model.config.targets))


def require_potential(config: PropertyConfig) -> None:
    """`DatasetError` unless the potential that `config` names covers all elements."""
    if config.potential is None:
        return
    covered = PotentialEstimates(config.potential.name).model.atomic_numbers
    if missing := sorted(set(config.elements) - set(covered)):
        raise DatasetError(
            f"{config.potential.name} must cover all elements of the training crystals, and lacks "
            f"{', '.join(chemical_symbols[z] for z in missing)}; leave it out, or these crystals"
        )


def with_energies(
    data: CrystalSet, crystals: Sequence[LabeledCrystal], config: PropertyConfig
) -> CrystalSet:
    """The set with energies of the potential that `config` names; itself if it names none."""
    if config.potential is None:
        return data
    energies = PotentialEstimates(config.potential.name)([c.atoms for c in crystals])
    return replace(data, energies=energies)


def target_table(crystals: Sequence[LabeledCrystal], targets: Sequence[Target]) -> Tensor:
    """Targets (n, n_targets); `DatasetError` for a logarithm of what is not positive."""
    table = np.full((len(crystals), len(targets)), np.nan)
    for k, t in enumerate(targets):
        for row, c in enumerate(crystals):
            value = c.labels.get(t.name)
            if value is None:
                continue
            if t.kind == "log10":
                if value <= 0:
                    raise DatasetError(
                        f"{t.name} is learned as a logarithm and must be positive, but crystal "
                        f"{row} ({c.atoms.get_chemical_formula()}) has {value}; leave it out"
                    )
                value = math.log10(value)
            table[row, k] = value
    return torch.from_numpy(table)


def batches(
    data: CrystalSet,
    size: int,
    generator: np.random.Generator | None = None,
    full_edges: int = 0,
) -> list[NDArrayInt]:
    """Rows of each batch; drawn ones hold graphs of similar size, in random order.

    `full_edges` is that of `PropertySchedule`.
    """
    n = len(data.graphs)
    if generator is None:
        return [np.arange(k, min(k + size, n)) for k in range(0, n, size)]
    order = generator.permutation(n)
    lengths = np.array([len(g.distances) for g in data.graphs])
    if full_edges:
        order = order[generator.random(n) * lengths[order] < full_edges]
    # sorted within chunks of several batches: bucketed, yet different in every epoch
    chunk = 16 * size
    n = len(order)
    parts = []
    for begin in range(0, n, chunk):
        rows = order[begin : begin + chunk]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        parts += [rows[k : k + size] for k in range(0, len(rows), size)]
    # a batch of one crystal has no statistics
    parts = [p for p in parts if len(p) > 1 or len(parts) == 1]
    return [parts[k] for k in generator.permutation(len(parts))]


def gather(data: CrystalSet, rows: NDArrayInt) -> tuple[CrystalGraph, Tensor]:
    """The graph and the targets of some rows."""
    return CrystalGraph.concatenate([data.graphs[r] for r in rows]), data.targets[rows]


def select(data: CrystalSet, rows: NDArrayInt) -> CrystalSet:
    """Some rows of a set."""
    energies = None if data.energies is None else data.energies[rows]
    return CrystalSet([data.graphs[r] for r in rows], data.targets[rows], energies)


def sample(n: int, most: int, seed: int) -> NDArrayInt:
    """At most so many rows of n, drawn at random, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def standardize(model: PropertyModel, targets: Tensor, kept: Collection[int] = ()) -> None:
    """Set mean and scale of the targets but `kept` ones; classes keep 0 and 1."""
    for k, t in enumerate(model.config.targets):
        if k in kept:
            continue
        column = targets[:, k][torch.isfinite(targets[:, k])]
        if len(column) == 0:
            raise DatasetError(f"no training crystal has the property {t.name}")
        if t.kind != "class":
            model.target_mean[k] = column.mean()
            model.target_scale[k] = column.std() if len(column) > 1 else 1.0
