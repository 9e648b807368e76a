"""The repulsive floor below the shortest training distance."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from calculators.small_potentials import small_pet

from pet_calc.geometry import System
from pet_calc.models import evaluate
from pet_calc.models.pet import PET
from pet_calc.neighbors import neighbor_list


@pytest.fixture
def model():
    plain = small_pet()
    model = PET(replace(plain.config, short_range_repulsion=True), dtype=torch.float64)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.repulsion.onset.copy_(torch.tensor([[1.3, 0.9], [0.9, 2.4]], dtype=torch.float64))
    return model


def dimer(r, numbers=(1, 1)):
    positions = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, r]], dtype=torch.float64)
    return System.single(positions, torch.tensor(numbers))


def repulsion(model, r, numbers=(1, 1)):
    """Energy and force along the bond that the repulsion alone adds to a dimer."""
    system = dimer(r, numbers)
    edges = neighbor_list(system, model.cutoff)
    full = evaluate(model, system, edges)
    module, model.repulsion = model.repulsion, None
    bare = evaluate(model, system, edges)
    model.repulsion = module
    return (full.energy - bare.energy).item(), (full.forces - bare.forces)[1, 2].item()


def test_value_is_that_of_the_formula(model):
    # at the middle of the switch the bump is 1/2
    energy, force = repulsion(model, 0.85 * 1.3)
    assert energy == pytest.approx(0.5 * 0.85**-8, rel=1e-9)
    assert force > 0


@pytest.mark.parametrize(("numbers", "onset"), [((1, 1), 1.3), ((1, 8), 0.9), ((8, 8), 2.4)])
def test_nothing_is_added_beyond_the_onset(model, numbers, onset):
    assert repulsion(model, onset, numbers) == (0.0, 0.0)
    assert repulsion(model, 1.1 * onset, numbers) == (0.0, 0.0)
    energy, force = repulsion(model, 0.9 * onset, numbers)
    assert energy > 0.1
    assert force > 0


def test_it_rises_and_pushes_apart_down_to_small_distances(model):
    energies, forces = zip(*(repulsion(model, r) for r in np.linspace(1.29, 0.3, 60)), strict=True)
    assert all(b > a for a, b in itertools.pairwise(energies))
    assert min(forces) > 0


def test_it_is_smooth_at_the_onset(model):
    # first to third differences vanish together as the onset is approached from below
    r = 1.3 - np.array([2e-2, 1e-2, 5e-3])
    energies = np.array([repulsion(model, x)[0] for x in r])
    assert (energies < 1e-3).all()
    assert energies[2] < 1e-8 * max(energies[0], 1e-12) or energies[2] < 1e-12


def test_without_it_the_weights_are_those_of_the_plain_model(model):
    plain = small_pet()
    names = set(model.state_dict()) - set(plain.state_dict())
    assert names == {"repulsion.onset", "repulsion.strength"}


def test_forces_are_derivatives_where_the_switch_acts(model):
    step = 1e-5
    for r in (1.29, 1.2, 1.0, 0.8):
        energies = []
        for x in (r + step, r - step):
            system = dimer(x)
            energies.append(evaluate(model, system, neighbor_list(system, 3.0)).energy.item())
        system = dimer(r)
        force = evaluate(model, system, neighbor_list(system, 3.0)).forces[1, 2].item()
        assert force == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-6, abs=1e-6)
