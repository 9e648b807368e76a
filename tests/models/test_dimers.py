"""Pairs of atoms alone: curves, and a repulsion that is raised until none attracts."""

from dataclasses import replace

import pytest
import torch
from calculators.small_potentials import small_pet

from pet_calc.geometry import System
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models import LennardJones, evaluate
from pet_calc.models.dimers import FLOOR, dimer, dimers, force_of, make_repulsive
from pet_calc.models.pet import PET
from pet_calc.models.pet.repulsion import ShortRangeRepulsion
from pet_calc.models.pet.zbl import covalent_radius
from pet_calc.neighbors import neighbor_list

SHARES = torch.linspace(0.3, 1.6, 40)


def with_repulsion(scale=1.0):
    """A network of random weights whose energies are `scale` times as large, with a repulsion."""
    plain = small_pet()
    model = PET(replace(plain.config, short_range_repulsion=True), dtype=torch.float64)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.head_constants()[1].mul_(scale)
    bonds = [[covalent_radius(a) + covalent_radius(b) for a in (1, 8)] for b in (1, 8)]
    model.repulsion.onset.copy_(0.85 * torch.tensor(bonds, dtype=torch.float64))
    return model.requires_grad_(False)


def test_curves_are_those_of_the_model():
    model = LennardJones((11, 17), epsilon=0.2, sigma=2.3, cutoff=4.0, cutoff_width=2.0)
    found = dimer(model, (11, 17), SHARES)
    bond = covalent_radius(11) + covalent_radius(17)
    assert found.bond == pytest.approx(bond)
    for k in (3, 20, 39):
        r = float(SHARES[k].double() * bond)
        positions = torch.tensor([[0.0, 0, 0], [0, 0, r]], dtype=torch.float64)
        system = System.single(positions, torch.tensor([11, 17]))
        one = evaluate(model, system, neighbor_list(system, model.cutoff))
        assert found.energy[k].item() == pytest.approx(one.energy.item(), abs=1e-12)
        assert found.force[k].item() == pytest.approx(one.forces[1, 2].item(), abs=1e-10)
    assert found.attraction() < 0 < found.attraction(1.6)
    with pytest.raises(ValueError, match="no distance lies below"):
        found.attraction(0.2)


def test_the_force_of_the_repulsion_is_its_derivative():
    repulsion = ShortRangeRepulsion(1)
    repulsion.onset.fill_(2.0)
    repulsion.strength.fill_(3.0)
    # in the middle of the switch the bump is 1/2; below it the formula is bare
    r = torch.tensor([1.2, 2.5], dtype=torch.float64)
    expected = 8 * 3.0 * 2.0**8 / 1.2**9
    assert force_of(repulsion, (0, 0), r).tolist() == pytest.approx([expected, 0.0])


@pytest.mark.parametrize("scale", [1.0, 3e5, -3e5])
def test_no_pair_attracts_at_short_distance_any_more(scale):
    model = with_repulsion(scale)
    before = [d.attraction() for d in dimers(model, SHARES)]
    strength = model.repulsion.strength.clone()
    assert make_repulsive(model, model.repulsion) == []
    after = [d.attraction() for d in dimers(model, SHARES)]
    assert all(a < 0 for a in after)
    raised = model.repulsion.strength > strength
    assert bool(raised.any()) == any(b > 0 for b in before)
    assert torch.equal(model.repulsion.strength, model.repulsion.strength.T)
    if scale < 0:  # the control: such a network does attract
        assert max(before) > 1.0
        assert not bool(raised.all())  # what repels already is left as it is


def test_beyond_the_onset_nothing_changes():
    weak, strong = with_repulsion(-3e5), with_repulsion(-3e5)
    make_repulsive(strong, strong.repulsion)
    beyond = torch.linspace(0.86, 1.6, 20)
    for a, b in zip(dimers(weak, beyond), dimers(strong, beyond), strict=True):
        assert torch.equal(a.energy, b.energy)


def test_what_cannot_be_mended_is_said():
    """The repulsion sets in below the distance where the pair attracts."""
    model = with_repulsion(-3e5)
    model.repulsion.onset.mul_((FLOOR - 0.1) / 0.85)
    left = make_repulsive(model, model.repulsion)
    assert left
    assert all(d.attraction() > 0 for d in left)


def test_strengths_are_saved_and_needed(tmp_path):
    model = with_repulsion(-3e5)
    make_repulsive(model, model.repulsion)
    save_model(tmp_path / "new", model)
    again = load_model(tmp_path / "new", torch.float64)
    assert torch.equal(again.repulsion.strength, model.repulsion.strength)
    state = model.state_dict()
    del state["repulsion.strength"]
    with pytest.raises(RuntimeError, match="strength"):
        model.load_state_dict(state)
