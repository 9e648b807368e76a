"""Several models as one: mean, spread, and members of different cutoffs."""

import pytest
import torch
from contracts.energy_model import Potential, forces_match_energy, stress_matches_energy
from contracts.models import LJ_OPTIONS, lennard_jones, random_pet
from contracts.structures import dense_random

from pet_calc.models import EnergyModel, LennardJones, evaluate
from pet_calc.models.committee import Committee
from pet_calc.neighbors import neighbor_list


def members() -> list[EnergyModel]:
    return [random_pet(1), random_pet(2), random_pet(3, cutoff=2.9), lennard_jones()]


def test_mean_and_spread_are_those_of_the_members() -> None:
    models = members()
    committee = Committee(models)
    assert isinstance(committee, EnergyModel)
    assert committee.cutoff == 4.0
    box = dense_random()
    edges = neighbor_list(box, committee.cutoff)
    found = evaluate(committee, box, edges)
    alone = [evaluate(m, box, neighbor_list(box, m.cutoff)) for m in models]
    spread = found.uncertainties
    assert spread is not None
    for mean, sigma, values in (
        (found.energy, spread.energy_uncertainty, [r.energy for r in alone]),
        (found.energies, spread.energies_uncertainty, [r.energies for r in alone]),
        (found.forces, spread.forces_uncertainty, [r.forces for r in alone]),
        (found.stress, spread.stress_uncertainty, [r.stress for r in alone]),
    ):
        stacked = torch.stack([v for v in values if v is not None])
        assert mean is not None
        assert sigma is not None
        assert torch.allclose(mean, stacked.mean(0), rtol=0, atol=1e-11)
        assert torch.allclose(sigma, stacked.std(0), rtol=0, atol=1e-11)
        assert sigma.max() > 1e-3
    assert spread.energy_ensemble.shape == (1, 4)
    # control: derivatives of the mean energy in one graph
    one_pass = evaluate(committee, box, edges, create_graph=True)
    assert found.forces is not None
    assert one_pass.forces is not None
    assert torch.allclose(one_pass.forces, found.forces, rtol=0, atol=1e-11)


def test_the_mean_is_a_potential() -> None:
    committee = Committee([random_pet(1), random_pet(2, cutoff=2.9)])
    forces_match_energy(Potential(committee), dense_random())
    stress_matches_energy(Potential(committee), dense_random())


def test_equal_members_have_no_spread() -> None:
    box = dense_random()
    model = random_pet(1)
    found = evaluate(Committee([model, model]), box, neighbor_list(box, model.cutoff))
    assert found.uncertainties is not None
    assert found.uncertainties.energy_uncertainty.abs().max() < 1e-12


def test_what_makes_no_committee_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two models, got 1"):
        Committee([random_pet(1)])
    with pytest.raises(ValueError, match="one dtype"):
        Committee([random_pet(1), random_pet(1, torch.float32)])
    with pytest.raises(ValueError, match="an element in common"):
        Committee([lennard_jones(), LennardJones((79,), **LJ_OPTIONS)])
    assert Committee([lennard_jones(), LennardJones((8, 14, 79), **LJ_OPTIONS)]).atomic_numbers == (
        8,
        14,
    )
