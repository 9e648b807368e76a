"""The training domain: measured right, kept beside the weights, found by name."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from calculators.small_potentials import small_pet

from pet_calc import PETCalculator
from pet_calc.errors import CheckpointError, DatasetError
from pet_calc.io.models.domain import TrainingDomain, measure_domain, training_domain
from pet_calc.io.models.weights import read_domain, save_model


def test_distances_and_volumes_are_those_of_the_structures():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    larger = bulk("NaCl", "rocksalt", a=6.0, cubic=True)
    molecule = Atoms("ClH", positions=[[0, 0, 0], [0, 0, 1.3]])
    domain = measure_domain([larger, salt, molecule], 4.5)
    assert domain.elements == ("H", "Na", "Cl")
    assert domain.n_structures == 3
    assert domain.shortest("Cl", "Na") == domain.shortest("Na", "Cl") == pytest.approx(2.8)
    assert domain.shortest("Na", "Na") == pytest.approx(5.6 / np.sqrt(2))
    assert domain.shortest("H", "Cl") == pytest.approx(1.3)
    assert domain.shortest("H", "Na") is None
    assert domain.volume_per_atom == pytest.approx((5.6**3 / 8, 6.0**3 / 8))


def test_molecules_alone_have_no_volume():
    assert measure_domain([Atoms("H")], 4.0).volume_per_atom is None
    with pytest.raises(DatasetError, match="got none"):
        measure_domain([], 4.0)


def test_plain_values_come_back():
    domain = measure_domain([bulk("NaCl", "rocksalt", a=5.6)], 4.0)
    again = TrainingDomain.from_dict(domain.to_dict())
    assert again.elements == domain.elements
    assert again.shortest("Na", "Cl") == pytest.approx(2.8, abs=1e-4)
    for broken in ({}, {"elements": ["H"], "shortest_distances": {"H": 1}, "n_structures": 1}):
        with pytest.raises(CheckpointError, match="training domain needs"):
            TrainingDomain.from_dict(broken)


def test_a_calculator_tells_the_domain_of_its_potential(tmp_path):
    domain = measure_domain([Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.9]])], 3.0)
    save_model(tmp_path / "new", small_pet(), domain=domain)
    save_model(tmp_path / "old", small_pet())
    assert read_domain(tmp_path / "new") == domain
    assert training_domain(PETCalculator(tmp_path / "new")) == domain
    assert read_domain(tmp_path / "old") is None
    assert training_domain(PETCalculator(tmp_path / "old")) is None
    assert training_domain(PETCalculator(small_pet())) is None
