"""The guard of a run: every symptom stops it, and a healthy state does not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from pet_calc.errors import InvalidStructureError
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.workflows.guards import Guard, GuardConfig, Reading

DOMAIN = TrainingDomain(("Cu",), {("Cu", "Cu"): 2.4}, (11.0, 13.0), 10)


class Knows(EMT):
    """EMT that says what it was trained on, and how uncertain it is."""

    training_domain = DOMAIN
    energy_error = 0.01  # eV
    force_error = 0.02  # eV/Å

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        errors = np.full((len(atoms), 3), self.force_error / np.sqrt(3))
        errors[2] *= 3
        self.results |= {"energy_uncertainty": self.energy_error, "forces_uncertainty": errors}


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.03, seed=0)
    atoms.calc = Knows()
    return atoms


def judge(guard, atoms, **options):
    return guard.find(
        atoms, atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False), **options
    )


def test_a_healthy_run_passes(copper):
    guard = Guard.at_start(copper, GuardConfig(energy_uncertainty=0.01, forces_uncertainty=0.1))
    reading = Reading(copper.get_potential_energy(), 300.0)
    copper.rattle(0.01, seed=1)
    assert judge(guard, copper, temperature=320.0, hottest=1500.0, previous=reading) is None


def test_a_pair_closer_than_in_training_is_named(copper):
    guard = Guard.at_start(copper)
    distances = copper.get_distances(5, range(32), mic=True)
    partner = int(np.argsort(distances)[1])
    towards = copper.get_distance(5, partner, mic=True, vector=True) / distances[partner]
    # between the limit of 0.8 × 2.4 Å and that of contact, 1.58 Å
    copper.positions[5] += (distances[partner] - 1.85) * towards
    found = judge(guard, copper)
    assert found is not None
    assert set(found.atoms) == {5, partner}
    assert "trained on no such pair closer than 2.400 Å" in found.cause
    assert "atom 5 (Cu)" in found.cause
    copper.positions[5] -= 0.1 * towards  # 1.95 Å is within the margin
    assert judge(guard, copper) is None


def test_a_pair_that_training_never_saw_has_no_limit():
    atoms = Atoms("CuO", positions=[[0, 0, 0], [0, 0, 1.7]])
    assert judge(Guard(GuardConfig(), DOMAIN), with_emt(atoms)) is None


def with_emt(atoms):
    atoms.calc = EMT()
    return atoms


def test_a_collapse_stops(copper):
    guard = Guard.at_start(copper)
    copper.positions[1] = copper.positions[0] + [0.3, 0, 0]
    found = judge(guard, copper)
    assert found is not None
    assert set(found.atoms) == {0, 1}
    assert "nearly touch" in found.cause


@pytest.mark.parametrize(("scale", "where"), [(0.85, "below"), (1.12, "above")])
def test_density_outside_of_training_stops(copper, scale, where):
    guard = Guard.at_start(copper, GuardConfig(distance_margin=0.5))
    copper.set_cell(copper.cell * scale, scale_atoms=True)
    found = judge(guard, copper)
    assert found is not None
    assert f"is {where} the range" in found.cause


def test_the_density_of_the_start_is_accepted(copper):
    copper.center(vacuum=5.0, axis=2)  # a slab with its vacuum
    guard = Guard.at_start(copper)
    assert judge(guard, copper) is None
    copper.center(vacuum=12.0, axis=2)
    assert judge(guard, copper) is not None


def test_jumps_stop(copper):
    guard = Guard.at_start(copper)
    energy = copper.get_potential_energy()
    limit = guard.config.largest_energy_change(32)
    for sign in (1, -1):
        found = judge(guard, copper, previous=Reading(energy + sign * 1.01 * limit))
        assert found is not None
        assert "jumped by" in found.cause
        assert judge(guard, copper, previous=Reading(energy + sign * 0.99 * limit)) is None
    hot = {"temperature": 1200.0, "hottest": 1500.0}
    found = judge(guard, copper, previous=Reading(energy, 300.0), **hot)
    assert found is not None
    assert "jumped from 300 to 1200 K" in found.cause
    assert judge(guard, copper, previous=Reading(energy, 600.0), **hot) is None
    found = judge(guard, copper, temperature=1501.0, hottest=1500.0)
    assert found is not None
    assert "exploded" in found.cause


def test_uncertainty_stops(copper):
    guard = Guard.at_start(copper, GuardConfig(energy_uncertainty=0.0003))
    found = judge(guard, copper)
    assert found is not None
    assert "0.3 meV/atom, above" in found.cause
    guard = Guard.at_start(copper, GuardConfig(forces_uncertainty=0.03))
    found = judge(guard, copper)
    assert found is not None
    assert found.atoms == (2,)
    assert "atom 2 (Cu) at 0.060 eV/Å" in found.cause
    copper.calc.energy_error = np.nan
    copper.rattle(0.001)
    assert judge(Guard(GuardConfig(energy_uncertainty=1.0)), copper) is not None


def test_a_limit_that_cannot_be_checked_is_refused(copper):
    copper.calc = EMT()
    with pytest.raises(ValueError, match="EMT gives no forces_uncertainty"):
        Guard.at_start(copper, GuardConfig(forces_uncertainty=0.1))


def test_uncertainty_on_request_is_asked_for(copper):
    class OnRequest(Calculator):
        implemented_properties = ["energy", "forces", "energy_uncertainty"]  # noqa: RUF012

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results |= {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}
            if "energy_uncertainty" in properties:
                self.results["energy_uncertainty"] = 1.0

    copper.calc = OnRequest()
    guard = Guard.at_start(copper, GuardConfig(energy_uncertainty=0.01))
    found = judge(guard, copper)
    assert found is not None
    assert "31.2 meV/atom" in found.cause


def test_a_start_outside_of_training_is_refused(copper):
    copper.numbers[7] = 29 + 50
    with pytest.raises(InvalidStructureError, match=r"holds Au \(atom 7 \(Au\) is the first\)"):
        Guard.at_start(copper)
    copper.numbers[7] = 29
    copper.positions[1] = copper.positions[0] + [1.85, 0, 0]
    with pytest.raises(InvalidStructureError, match="trained on no such pair"):
        Guard.at_start(copper)
    # without a domain there is nothing to compare with
    copper.calc = EMT()
    assert Guard.at_start(copper).volume_per_atom is None


def test_settings_refuse_nonsense():
    for name in ("energy_jump", "forces_uncertainty", "volume_margin"):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive"):
            GuardConfig(**{name: -1.0})
    with pytest.raises(ValueError, match="share below 1"):
        GuardConfig(distance_margin=1.0)
