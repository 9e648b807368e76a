"""What is fitted beside a property model: deviations, and the volumes of its domain."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from crystals.models.crystals import SMALL

from pet_calc.crystals.io.graphs import graph_of
from pet_calc.crystals.io.property_weights import load_property_model, save_property_model
from pet_calc.crystals.models import (
    CrystalGraph,
    PropertyConfig,
    PropertyEnsemble,
    PropertyModel,
    Target,
)
from pet_calc.crystals.training.property_config import PropertySchedule, PropertyTraining
from pet_calc.crystals.training.property_network import loss_of
from pet_calc.crystals.training.property_uncertainty import exponents, fit_volumes
from pet_calc.io.data.crystals import LabeledCrystal


def network(elements=(11, 17), seed=0, scales=False):
    """A small network with seeded weights, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = PropertyConfig(
            elements, (Target("x"), Target("y")), "cgcnn", SMALL["cgcnn"], scales=scales
        )
        return PropertyModel(config).double().eval().requires_grad_(False)


def test_exponents_of_a_known_law_are_found():
    """Errors of a Laplace distribution whose deviation is a product of powers of two factors."""
    generator = np.random.default_rng(0)
    n = 40_000
    x = np.stack([np.ones(n), generator.normal(1.0, 0.7, n), np.zeros(n),
                  generator.normal(-2.0, 0.5, n)], axis=1)  # fmt: skip
    true = np.array([-1.0, 0.8, 0.0, 0.3])
    deviation = np.exp(x @ true)
    errors = np.abs(generator.laplace(0.0, deviation / np.sqrt(2)))
    found = exponents(errors, x)
    assert found == pytest.approx(true, abs=0.05)
    assert found[2] == 0  # what does not vary says nothing
    # the control: errors that depend on nothing
    found = exponents(np.abs(generator.laplace(0.0, 2.0 / np.sqrt(2), n)), x)
    assert found == pytest.approx([np.log(2), 0, 0, 0], abs=0.05)


def test_volumes_of_atoms_are_found_and_swelling_is_seen():
    model = PropertyEnsemble.of([network((11, 12, 17))])
    crystals = [
        LabeledCrystal(bulk(name, "rocksalt", float(a)), {})
        for name, a in [*(("NaCl", a) for a in np.linspace(5.5, 5.7, 30)), ("MgCl", 5.2)]
    ]
    fit_volumes(model, crystals)
    salt = bulk("NaCl", "rocksalt", 5.6)
    numbers = torch.from_numpy(salt.numbers)
    low, high = model.volume_limits.tolist()
    assert low < model.swelling(numbers, salt.cell.volume) < high
    assert model.swelling(numbers, 2 * salt.cell.volume) > high
    assert model.swelling(numbers, 0.5 * salt.cell.volume) < low
    assert model.swelling(numbers, salt.cell.volume) == pytest.approx(0.0, abs=0.05)


def test_an_ensemble_is_the_mean_of_its_members_and_is_saved(tmp_path):
    members = [network(seed=s) for s in (0, 1)]
    model = PropertyEnsemble.of(members)
    model.exponents.fill_(0.25)
    graph = graph_of(bulk("NaCl", "rocksalt", 5.6), model.graph_config).to(torch.float64)
    both = model(CrystalGraph.concatenate([graph, graph]))
    values = torch.stack([n.read_out(n.last_features(graph)) for n in members])
    assert torch.allclose(both.values, values.mean(0).expand_as(both.values))
    spread = (values[0] - values[1]).abs()[0] / 2**0.5
    assert torch.allclose(both.factors[0, :, 3].exp(), spread)
    expected = (0.25 * both.factors.sum(-1)).exp()
    assert torch.allclose(model.deviations(both), expected)
    assert model.encode(graph).pooled.shape[1] == 2 * members[0].backbone.width
    save_property_model(tmp_path, model, {})
    again = load_property_model(tmp_path).double()
    assert len(again.members) == 2
    assert torch.equal(again(graph).values, model(graph).values)


def test_scales_are_learnt_beside_values_that_do_not_notice():
    """The loss of a scale moves the scale alone among the last weights."""
    graph = graph_of(bulk("NaCl", "rocksalt", 5.6), network().encoder.graph_config)
    graph = graph.to(torch.float64)
    gradients = []
    for scales in (False, True):
        model = network(scales=scales).requires_grad_(True)
        n = len(model.config.targets)
        targets = torch.full((1, n), 0.3, dtype=torch.float64)
        with torch.no_grad():
            model.last.weight.fill_(1e-3)
            model.last.bias.zero_()
        loss_of(model, graph, targets, "l1").backward()
        gradients.append(model.last.weight.grad[:n])
        if scales:
            size = (model(graph)[:, :n].detach() - targets).abs()
            # d/ds of 0.2 (|e| exp(-s) + s)
            logarithm = model(graph)[:, n:].detach()
            expected = 0.2 * (1 - size * (-logarithm).exp())
            assert torch.allclose(model.last.bias.grad[n:], expected[0])
            assert torch.allclose(model.scales(model.last_features(graph)), logarithm.exp())
    assert torch.allclose(*gradients)


def test_options_are_checked():
    with pytest.raises(ValueError, match="`loss` must be one of l1, mse"):
        PropertySchedule(epochs=1, loss="huber")
    with pytest.raises(ValueError, match="`members`"):
        PropertyTraining("x", {}, None, PropertySchedule(epochs=1), members=0)
