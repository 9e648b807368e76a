"""Fine-tuning may show angles to the attention of a potential that was trained without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contracts.energy_model import Potential, rotation_invariant
from contracts.models import random_pet
from contracts.structures import STRUCTURES

from pet_calc.models.pet.add_angles import adds_angles, with_angles
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.initial_model import source_model
from pet_calc.training.potentials.loop import load_data, train


def test_it_begins_as_the_same_function() -> None:
    model = random_pet(1, input_encoding="radial")
    water = STRUCTURES["water-24"]()
    before = Potential(model)(water)
    config = replace(model.config, angular_degree=2)
    extended = with_angles(model, config)
    after = Potential(extended)(water)
    assert torch.allclose(after.energies, before.energies, rtol=0, atol=1e-12)
    # and learns from there: what the strengths of queries and the invariants do is not nothing
    extended.requires_grad_(True)
    extended.energies(*arguments(extended, water)).sum().backward()
    for layer in extended.gnn_layers:
        attention = layer.trans.layers[0].attention
        strengths = attention.input_linear.weight.grad[3 * config.d_pet :]
        assert float(strengths[: 2 * config.num_heads].abs().max()) > 1e-6
        assert float(attention.invariant_linear.weight.grad.abs().max()) > 1e-6


def arguments(model, system):
    from pet_calc.geometry import edge_vectors
    from pet_calc.neighbors import neighbor_list

    edges = neighbor_list(system, model.cutoff)
    return system, edges, edge_vectors(system, edges)


def test_vectors_may_be_left_out_of_the_tokens() -> None:
    model = random_pet(1, input_encoding="radial")
    extended = with_angles(
        model, replace(model.config, input_encoding="distance", angular_degree=2)
    )
    rotation_invariant(Potential(extended), STRUCTURES["water-24"]())
    # what the source says of the same edges without their vectors
    with torch.no_grad():
        for layer in model.gnn_layers:
            layer.edge_embedder.weight[:, [0, 1, 2, 4, 5, 6]] = 0.0
    water = STRUCTURES["water-24"]()
    a, b = Potential(extended)(water).energies, Potential(model)(water).energies
    assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_what_may_change() -> None:
    radial = random_pet(1, input_encoding="radial").config
    angles = replace(radial, angular_degree=2)
    assert adds_angles(angles, radial)
    assert adds_angles(replace(angles, input_encoding="distance"), radial)
    for other in (
        radial,
        replace(radial, input_encoding="distance"),
        replace(angles, input_encoding="cartesian"),
        replace(angles, d_node=16),
    ):
        assert not adds_angles(other, radial)
    assert not adds_angles(replace(angles, angular_degree=3), angles)
    cartesian = random_pet(1).config
    assert adds_angles(replace(cartesian, angular_degree=2), cartesian)
    assert not adds_angles(
        replace(cartesian, angular_degree=2, input_encoding="distance"), cartesian
    )


def test_a_training_starts_so(tmp_path, data_folder, config_table, parent) -> None:
    table = config_table | {
        "model": config_table["model"] | {"angular_degree": 2},
        "fine_tune": {"from": str(parent)},
    }
    config = TrainConfig.from_dict(table)
    train(config, tmp_path, load_data(config, data_folder), stop_after=3)
    with pytest.raises(ValueError, match="angles \\(`angular_degree`\\)"):
        source_model(str(parent), replace(config.model, d_node=12), "float32")
