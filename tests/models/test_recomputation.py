"""Recomputed activations: the same numbers and derivatives, less memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contracts.models import random_pet
from torch import nn

from pet_calc.geometry import Edges, edge_vectors
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.pet import network as module
from pet_calc.models.recomputation import by_rows, recomputed
from pet_calc.neighbors import neighbor_list
from pet_calc.workflows.water_box import water_box

OPTIONS = {
    "plain": {},
    "residual": {"featurizer_type": "residual"},
    "angular": {"input_encoding": "distance", "angular_degree": 2},
    "layerwise": {"ecse": "layerwise", "input_encoding": "radial"},
}


@pytest.fixture(scope="module")
def water():
    atoms = water_box(8, seed=1)
    return system_from_atoms(atoms), neighbor_list(system_from_atoms(atoms), 3.0)


def keep(monkeypatch, elements: int, part: int = 2**10) -> None:
    for name in ("KEPT", "KEPT_OF_VIEWS"):
        monkeypatch.setattr(module, name, elements)
    monkeypatch.setattr(module, "PART", part)


def derivatives(model, system, edges: Edges) -> list[torch.Tensor]:
    """Energy, forces, stress, and the gradient on the weights of a loss of all three."""
    model.zero_grad()
    found = evaluate(model, system, edges, create_graph=True)
    loss = found.energy.sum() + found.forces.square().sum() + 1e3 * found.stress.square().sum()
    loss.backward()
    weights = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return [x.detach() for x in (found.energy, found.forces, found.stress)] + [torch.cat(weights)]


@pytest.mark.parametrize("kind", OPTIONS)
def test_nothing_changes(kind, water, monkeypatch) -> None:
    model = random_pet(1, **OPTIONS[kind]).requires_grad_(True)
    keep(monkeypatch, 2**40)
    expected = derivatives(model, *water)
    keep(monkeypatch, 0)
    parts = []
    recorded = module.by_rows
    monkeypatch.setattr(
        module, "by_rows", lambda *a, **k: parts.append(k["rows"]) or recorded(*a, **k)
    )
    for one, other in zip(expected, derivatives(model, *water), strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert all(parts), "the model did compute in parts"


def test_frozen_models_and_second_calls(water, monkeypatch) -> None:
    model = random_pet(1).requires_grad_(False)
    keep(monkeypatch, 2**40)
    expected = evaluate(model, *water)
    keep(monkeypatch, 0)
    for _ in range(2):
        found = evaluate(model, *water)
        torch.testing.assert_close(found.forces, expected.forces, rtol=1e-12, atol=1e-12)
    assert evaluate(model, *water, forces=False, stress=False).energy == pytest.approx(
        expected.energy, abs=1e-10
    )


def test_first_and_second_derivatives_of_a_function() -> None:
    """Of inputs that depend on each other and on a parameter of the function."""
    layer = nn.Linear(3, 3).double()

    def function(x, y):
        return layer(x).tanh() * y, (x * y).sin()

    def whole(x, *_):
        y = x.square() @ layer.weight
        a, b = recomputed(function, x, y, parameters=layer.parameters())
        return a + b, by_rows(layer, a, rows=2, parameters=layer.parameters())

    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(whole, (x, *parameters))
    assert torch.autograd.gradgradcheck(whole, (x, *parameters))


def saved_bytes(model, system, edges: Edges) -> int:
    """Memory that the graph of the energy holds for the backward pass."""
    held: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    system = replace(system, positions=system.positions.clone().requires_grad_())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        energies = model.energies(system, edges, edge_vectors(system, edges))
    assert energies.requires_grad
    return sum(held.values())


def test_memory_does_not_grow_with_the_number_of_frames(monkeypatch) -> None:
    system = system_from_atoms(water_box(32, seed=1))
    edges = neighbor_list(system, 3.0)
    keep(monkeypatch, 2**40, 2**16)
    plain = saved_bytes(random_pet(1), system, edges)
    pruned = FrameConfig(num_prunings=1, pruning_threshold=0.3, pruning_width=0.7)
    framed = random_pet(1, ecse="layerwise", frames=pruned)
    all_kept = saved_bytes(framed, system, edges)
    keep(monkeypatch, 0, 2**16)
    assert saved_bytes(framed, system, edges) < 1.5 * plain
    assert all_kept > 3.0 * plain, "several frames, whose activations would take much more"


def test_large_structures_take_less_memory(water, monkeypatch) -> None:
    model = random_pet(1).requires_grad_(False)
    keep(monkeypatch, 2**40)
    whole = saved_bytes(model, *water)
    keep(monkeypatch, 0)
    assert saved_bytes(model, *water) < 0.4 * whole
