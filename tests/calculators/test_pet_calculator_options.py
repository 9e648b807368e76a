"""PETCalculator of models with charges, several heads, direct heads and adaptive cutoffs."""

import copy
import logging
from dataclasses import replace

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from calculators.small_potentials import CUTOFF, liquid, rare_pet, small_pet

from pet_calc import PETCalculator
from pet_calc.errors import InvalidStructureError
from pet_calc.io.models.weights import save_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.models.pet import PET
from pet_calc.neighbors import neighbor_list


@pytest.fixture(scope="module")
def conditioned():
    return rare_pet(system_conditioning=True, max_charge=3, max_spin_multiplicity=4)


@pytest.fixture(scope="module")
def direct():
    return rare_pet(1, direct_forces=True, direct_stress=True)


def energy(atoms, calculator):
    atoms.calc = calculator
    return atoms.get_potential_energy()


# charge and spin


def test_charge_and_spin_are_read_from_info(conditioned):
    found = {}
    for charge, spin in ((0, 1), (1, 1), (-2, 1), (0, 3)):
        water = ase.build.molecule("H2O")
        water.info |= {"charge": charge, "spin_multiplicity": spin}
        found[charge, spin] = energy(water, PETCalculator(conditioned))
        system = system_from_atoms(water)
        assert (system.charge.item(), system.spin_multiplicity.item()) == (charge, spin)
        expected = evaluate(conditioned, system, neighbor_list(system, CUTOFF))
        assert found[charge, spin] == expected.energy.item()
        assert np.abs(water.get_forces() - expected.forces.numpy()).max() < 1e-12
        assert PETCalculator(conditioned).evaluate(water)["energy"] == expected.energy
    assert len({round(e, 4) for e in found.values()}) == 4
    assert found[0, 1] == energy(ase.build.molecule("H2O"), PETCalculator(conditioned))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("charge", 1),
        ("charge", np.int64(-1)),
        ("charge", 1.0),
        ("spin", 3),
        ("spin_multiplicity", 2),
    ],
)
def test_no_value_is_stale_after_a_change_of_info(conditioned, key, value):
    water = ase.build.molecule("H2O")
    calculator = PETCalculator(conditioned)
    neutral = energy(water, calculator)
    forces = water.get_forces()
    water.info[key] = value
    assert calculator.calculation_required(water, ["energy"])
    changed = water.get_potential_energy()
    assert abs(changed - neutral) > 1e-6
    assert np.abs(water.get_forces() - forces).max() > 1e-6
    assert changed == energy(water.copy(), PETCalculator(conditioned))
    del water.info[key]
    assert water.get_potential_energy() == neutral
    results = calculator.results
    water.info["note"] = "other entries do not matter"
    water.get_forces()
    assert calculator.results is results


def test_charge_in_place_is_noticed(conditioned):
    """An array in info that is changed in place is the caller's, not the calculator's."""
    water = ase.build.molecule("H2O")
    water.info["charge"] = np.array(0)
    calculator = PETCalculator(conditioned)
    neutral = energy(water, calculator)
    water.info["charge"][...] = 1
    assert water.get_potential_energy() != neutral


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 4}, r"supports charges from -3 to 3, but atoms.info\['charge'\] is \+4"),
        ({"charge": -4}, "supports charges from -3 to 3"),
        ({"spin": 5}, "from 1 to 4, but atoms.info has 5"),
        ({"spin": 0}, "from 1 to 4, but atoms.info has 0"),
        ({"charge": 0.5}, r"atoms.info\['charge'\] must be a whole number, got 0.5"),
        ({"charge": "one"}, "must be a whole number, got 'one'"),
        ({"charge": [0, 1]}, "must be a whole number"),
        ({"spin": np.nan}, "must be a whole number"),
        ({"spin": 2, "spin_multiplicity": 3}, "one spin multiplicity"),
    ],
)
def test_other_charges_and_spins_are_refused(conditioned, info, message):
    water = ase.build.molecule("H2O")
    calculator = PETCalculator(conditioned)
    energy(water, calculator)
    water.info |= info
    with pytest.raises(InvalidStructureError, match=message):
        water.get_potential_energy()
    assert calculator.results == {}
    for key in info:
        del water.info[key]
    water.get_potential_energy()


def test_a_model_without_charges_refuses_them_and_warns_of_spins(caplog):
    water = ase.build.molecule("H2O")
    calculator = PETCalculator(small_pet())
    neutral = energy(water, calculator)
    water.info["charge"] = 1
    with pytest.raises(InvalidStructureError, match=r"not support charged systems, .* is \+1"):
        water.get_potential_energy()
    water.info |= {"charge": 0, "spin": 3}
    with caplog.at_level(logging.WARNING, logger="pet_calc"):
        assert water.get_potential_energy() == neutral
        water.rattle(0.01)
        water.get_potential_energy()
    messages = [r.getMessage() for r in caplog.records if r.name == "pet_calc"]
    assert len(messages) == 1
    assert "does not depend on the spin" in messages[0]
    assert "2S + 1 = 3" in messages[0]


def test_a_potential_for_crystals_warns_of_what_is_none(caplog):
    def told() -> list[str]:
        messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        caplog.clear()
        return messages

    carbon_dioxide, crystal = ase.build.molecule("CO2"), ase.build.bulk("GaAs", "zincblende", 5.7)
    calculator = PETCalculator()
    with caplog.at_level(logging.WARNING, logger="pet_calc"):
        energy(crystal, calculator)
        energy(ase.build.molecule("H2O"), PETCalculator())  # a potential of another kind
        assert told() == []
        energy(carbon_dioxide, calculator)
        (message,) = told()
        assert "pet-general" in message
        assert "periodic in three dimensions" in message
        carbon_dioxide.rattle(0.01)
        energy(carbon_dioxide, calculator)
        assert told() == []  # once


def test_another_choice_of_potential_is_warned_of(caplog):
    calculator = PETCalculator()
    with caplog.at_level(logging.WARNING, logger="pet_calc"):
        energy(ase.build.molecule("H2O"), calculator)
        assert not caplog.records
        energy(ase.build.bulk("GaAs", "zincblende", 5.7), calculator)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "pet-general" in message
    assert "instead of pet-water" in message
    assert "do not compare" in message


# direct heads


@pytest.mark.parametrize("which", [True, "forces", "stress"])
def test_direct_heads_replace_derivatives(direct, which):
    atoms = liquid()
    atoms.calc = PETCalculator(direct, non_conservative=which)
    plain = atoms.copy()
    plain.calc = PETCalculator(direct)
    assert atoms.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-10)
    assert np.abs(atoms.get_forces().sum(0)).max() < 1e-12
    for name, replaced in (
        ("forces", which in (True, "forces")),
        ("stress", which in (True, "stress")),
    ):
        difference = np.abs(atoms.calc.results[name] - plain.calc.results[name]).max()
        assert (difference > 1e-6) == replaced, name
    assert f"non_conservative={which!r}" in repr(atoms.calc)
    assert atoms.calc.todict()["non_conservative"] == which


def test_direct_heads_see_the_charge():
    model = rare_pet(2, direct_forces=True, direct_stress=True, system_conditioning=True)
    forces = []
    for charge in (0, 1):
        atoms = liquid()
        atoms.info["charge"] = charge
        atoms.calc = PETCalculator(model, non_conservative=True)
        forces.append(atoms.get_forces())
    assert np.abs(forces[1] - forces[0]).max() > 1e-6


def test_absent_heads_are_refused(direct):
    with pytest.raises(ValueError, match="`forces` cannot be direct: this PET model has no head"):
        PETCalculator(small_pet(), non_conservative="forces")
    only_forces = rare_pet(direct_forces=True)
    PETCalculator(only_forces, non_conservative="forces")
    with pytest.raises(ValueError, match="`stress` cannot be direct"):
        PETCalculator(only_forces, non_conservative=True)
    for wrong in ("energy", None, 1.5):
        with pytest.raises(ValueError, match="`non_conservative` must be False, True"):
            PETCalculator(direct, non_conservative=wrong)


def test_direct_stress_needs_three_periodic_directions(direct):
    water = ase.build.molecule("H2O")
    water.calc = PETCalculator(direct, non_conservative=True)
    assert np.isfinite(water.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError):
        water.get_stress()


# energy heads


def test_variant_is_chosen_by_name(tmp_path):
    model = rare_pet(3, energy_heads=("energy", "energy/b", "energy/c"))
    save_model(tmp_path / "model", model)
    found = []
    for source in (model, tmp_path / "model"):
        for name in (None, "energy", "energy/b", "energy/c"):
            calculator = PETCalculator(source, variant=name, dtype="float64")
            found.append(energy(liquid(), calculator))
            assert calculator.potential.model.energy_head == (name or "energy")
    assert found[:4] == pytest.approx(found[4:], abs=1e-4)  # stored in float32
    assert found[0] == found[1]
    for name, value in zip(("energy/b", "energy/c"), found[2:4], strict=True):
        other = PET(replace(model.config, energy_head=name), dtype=torch.float64)
        other.load_state_dict(model.state_dict())
        assert value == pytest.approx(energy(liquid(), PETCalculator(other)), abs=1e-9)
    assert len({round(e, 3) for e in found[1:4]}) == 3
    assert model.config.energy_head is None, "the caller's model stays as it was"
    with pytest.raises(ValueError, match=r"\['energy', 'energy/b', 'energy/c'\], got 'energy/d'"):
        PETCalculator(model, variant="energy/d")
    assert "variant='energy/b'" in repr(PETCalculator(model, variant="energy/b"))


# features and environments


def test_features_are_those_that_the_energy_is_linear_in():
    model = rare_pet(4, featurizer_type="residual", system_conditioning=True)
    atoms = liquid()
    atoms.info["charge"] = 1
    atoms.calc = PETCalculator(model)
    features = atoms.calc.get_features(atoms)
    assert features.shape == (24, 4 * 8)
    assert features.dtype == np.float64
    pooled = atoms.calc.get_features(atoms, pooled=True)
    np.testing.assert_allclose(pooled, features.sum(0), atol=1e-12)
    other = liquid()
    assert np.abs(atoms.calc.get_features(other) - features).max() > 1e-6, "features see the charge"
    # the energy without biases, from the features
    weights = torch.cat([head[-1].weight[0] for pair in model.readouts("energy") for head in pair])
    quiet = copy.deepcopy(model)
    for pair in quiet.readouts("energy"):
        for head in pair:
            head[-1].bias.zero_()
    linear = (
        pooled @ weights.numpy()
        + quiet.reference_energies[quiet.species(torch.from_numpy(atoms.numbers))].sum().item()
    )
    assert energy(atoms, PETCalculator(quiet)) == pytest.approx(linear, abs=1e-9)
    # without an argument, of the structure of the last calculation
    last = PETCalculator(model)
    with pytest.raises(ValueError, match="before the first calculation"):
        last.get_features()
    energy(atoms, last)
    np.testing.assert_array_equal(last.get_features(), features)


def test_environments_of_a_fixed_cutoff():
    atoms = liquid()
    found = PETCalculator(small_pet()).get_environments(atoms)
    assert (found.cutoff == CUTOFF).all()
    expected = np.bincount(ase.neighborlist.neighbor_list("i", atoms, CUTOFF), minlength=24)
    np.testing.assert_array_equal(found.n_neighbors, expected)


@pytest.mark.parametrize("method", ["solver", "grid"])
def test_environments_of_an_adaptive_cutoff(method):
    model = rare_pet(
        5, num_neighbors_adaptive=5.0, adaptive_cutoff_method=method, cutoff=4.0, zbl=True
    )
    atoms = liquid() + Atoms("O", [[30.0, 30.0, 30.0]])
    atoms.pbc = False
    calculator = PETCalculator(model)
    found = calculator.get_environments(atoms)
    assert found.cutoff.shape == found.n_neighbors.shape == (25,)
    assert found.cutoff[:24].std() > 0
    assert (found.cutoff <= 4.0).all()
    assert found.n_neighbors[24] == 0
    i, j, d = ase.neighborlist.neighbor_list("ijd", atoms, 4.0)
    seen = d <= 0.5 * (found.cutoff[i] + found.cutoff[j])
    np.testing.assert_array_equal(found.n_neighbors, np.bincount(i[seen], minlength=25))
    assert found.n_neighbors.sum() < len(i)


def test_an_isolated_atom_has_the_energy_that_the_model_was_given(conditioned):
    """Zero edges in every architecture: the node readout and the reference energy remain."""
    for model in (conditioned, rare_pet(6, num_neighbors_adaptive=5.0), small_pet()):
        atom = Atoms("O", [[0.0, 0.0, 0.0]])
        alone = energy(atom, PETCalculator(model))
        apart = Atoms("OO", [[0.0, 0.0, 0.0], [0.0, 0.0, 1e4]])
        assert energy(apart, PETCalculator(model)) == pytest.approx(2 * alone, abs=1e-9)
        assert (apart.get_forces() == 0).all()


# sizes


def test_more_than_65535_atoms_on_a_long_line():
    """More atoms than 16 bits count, in a box whose grid of cells would divide by zero."""
    model = rare_pet(7, d_pet=4, d_node=4, d_head=4, d_feedforward=4, num_gnn_layers=1)
    n = 70_000
    positions = np.zeros((n, 3))
    positions[:, 0] = 5.0 * np.arange(n)
    positions[-1, 0] = positions[-2, 0] + 1.0  # one pair at the end
    atoms = Atoms(np.tile([8, 1], n // 2), positions)
    calculator = PETCalculator(model, dtype="float32")
    results = calculator.evaluate(atoms)
    pair = calculator.evaluate(atoms[-2:])
    alone = calculator.evaluate(atoms[:1])
    assert np.abs(results["energies"][-2:] - pair["energies"]).max() < 1e-5
    assert np.abs(results["energies"][:-2:2] - alone["energies"]).max() < 1e-5
    assert np.abs(results["forces"][-2:] - pair["forces"]).max() < 1e-5
    assert np.abs(pair["forces"]).max() > 1e-4
    assert (results["forces"][:-2] == 0).all()
    counts = calculator.get_environments(atoms).n_neighbors
    assert counts.tolist() == [0] * (n - 2) + [1, 1]
