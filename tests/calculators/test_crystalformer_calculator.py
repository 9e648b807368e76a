"""The Crystalformer calculator: from a model, a folder, by name; what it refuses."""

import json
import logging

import ase.build
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from contracts.models import random_crystalformer, random_pet

from pet_calc import CrystalformerCalculator, PETCalculator
from pet_calc.calculators import load_calculator
from pet_calc.errors import InvalidStructureError, UnsupportedElementError
from pet_calc.io.models.expected import compare_expected, write_expected
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig


@pytest.fixture
def silicon():
    atoms = ase.build.bulk("Si", "diamond", a=5.43)
    atoms.positions += 0.05 * np.random.default_rng(0).standard_normal((2, 3))
    return atoms


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", random_crystalformer(1))
    return tmp_path / "model"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """An index with one potential of each architecture for the same elements."""
    lines = ["schema = 1"]
    for name, model in (
        ("pet-toy-v1", random_pet(1)),
        ("crystalformer-toy-v1", random_crystalformer(1)),
    ):
        save_model(tmp_path / name, model)
        lines += ["[[potential]]", f'name = "{name}"', 'elements = ["H", "O", "Si"]']
        lines += [f'architecture = "{name.split("-")[0]}"', "[potential.sha256]"]
        lines += [f'"{f}" = "{sha256(tmp_path / name / f)}"' for f in (CONFIG, WEIGHTS)]
    (tmp_path / "index.toml").write_text("\n".join(lines))
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (tmp_path,))


def test_a_charge_is_refused_and_a_spin_warned_of(silicon, caplog):
    silicon.calc = CrystalformerCalculator(random_crystalformer(1))
    neutral = silicon.get_potential_energy()
    silicon.info["charge"] = 1
    with pytest.raises(InvalidStructureError, match=r"not support charged systems, .* is \+1"):
        silicon.get_potential_energy()
    with pytest.raises(InvalidStructureError, match="structure 1 of 2"):
        silicon.calc.evaluate_many([ase.build.bulk("Si"), silicon])
    silicon.info = {"spin_multiplicity": 3}
    with caplog.at_level(logging.WARNING, logger="pet_calc"):
        for _ in range(2):
            assert silicon.get_potential_energy() == pytest.approx(neutral, abs=1e-9)
            silicon.positions += 1.0
    (told,) = (r.getMessage() for r in caplog.records if r.name == "pet_calc")
    assert "2S + 1 = 3" in told


def test_forces_and_stress_are_derivatives(silicon):
    silicon.calc = CrystalformerCalculator(random_crystalformer(1))
    forces, stress = silicon.get_forces(), silicon.get_stress()
    # 1e-6 is the truncation of central differences of this step
    assert np.abs(forces - calculate_numerical_forces(silicon, eps=1e-4)).max() < 1e-6
    assert np.abs(stress - calculate_numerical_stress(silicon, eps=1e-5)).max() < 1e-7
    assert np.abs(forces).max() > 1e-2
    assert silicon.get_potential_energies().sum() == pytest.approx(silicon.get_potential_energy())


def test_folder_gives_the_model_back(folder, silicon):
    stored = json.loads((folder / CONFIG).read_text())
    assert stored["architecture"] == "crystalformer"
    silicon.calc = CrystalformerCalculator(folder, dtype="float64")
    # weights are stored in float32
    exact = random_crystalformer(1).float()
    model = load_model(folder, torch.float64)
    assert isinstance(model, Crystalformer)
    assert torch.equal(model.embedding.weight.float(), exact.embedding.weight)
    single = CrystalformerCalculator(folder).evaluate(silicon)
    assert silicon.get_potential_energy() == pytest.approx(single["energy"], abs=1e-4)
    assert silicon.calc.todict()["sha256"] == stored["weights_sha256"]
    assert repr(silicon.calc).startswith("CrystalformerCalculator(")


def test_expected_results_are_compared(folder, silicon):
    model = load_model(folder, torch.float64)
    write_expected(folder, model, {"silicon": silicon})
    assert all(d.within for d in compare_expected(folder, load_model(folder)))
    with torch.no_grad():
        model.head[-1].weight *= 1.001
    assert not all(d.within for d in compare_expected(folder, model))


def test_auto_picks_its_own_architecture(shipped, silicon):
    for kind, name in (
        (CrystalformerCalculator, "crystalformer-toy-v1"),
        (PETCalculator, "pet-toy-v1"),
    ):
        silicon.calc = kind()
        silicon.get_potential_energy()
        assert silicon.calc.potential.name == name
    silicon.calc = CrystalformerCalculator()
    silicon.symbols[0] = "W"
    with pytest.raises(UnsupportedElementError, match="no shipped crystalformer potential"):
        silicon.get_potential_energy()


def test_any_potential_finds_its_calculator(shipped, folder):
    assert isinstance(load_calculator("crystalformer-toy"), CrystalformerCalculator)
    assert isinstance(load_calculator(folder), CrystalformerCalculator)
    assert isinstance(load_calculator("pet-toy"), PETCalculator)
    assert isinstance(load_calculator(), PETCalculator)


def test_auto_names_potentials_of_another_architecture(shipped, tmp_path, silicon):
    index = tmp_path / "index.toml"
    index.write_text(index.read_text().replace('architecture = "pet"', 'architecture = "other"'))
    silicon.calc = PETCalculator("auto")
    with pytest.raises(UnsupportedElementError, match="name pet-toy-v1 or crystalformer-toy-v1"):
        silicon.get_potential_energy()


def test_other_models_are_refused(shipped):
    with pytest.raises(ValueError, match="runs Crystalformer models, but pet-toy-v1 is a PET"):
        CrystalformerCalculator("pet-toy-v1")
    with pytest.raises(ValueError, match="crystalformer-toy-v1 is a Crystalformer"):
        PETCalculator("crystalformer-toy-v1")
    with pytest.raises(TypeError, match="a name, a path or a Crystalformer"):
        CrystalformerCalculator(random_pet(1))
    property_model = Crystalformer(CrystalformerConfig.published(elements=(14,)))
    with pytest.raises(ValueError, match="predicts property of whole crystals"):
        CrystalformerCalculator(property_model)
    with pytest.raises(ValueError, match="float32"):
        CrystalformerCalculator(dtype="float16")


def test_free_atom_has_no_stress_and_no_force():
    atoms = ase.Atoms("O", positions=[[0, 0, 0]])
    atoms.calc = CrystalformerCalculator(random_crystalformer(1))
    assert not atoms.get_forces().any()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.mark.physics
def test_energy_is_conserved_as_verlet_conserves_it():
    """At constant energy, half the time step leaves a quarter of the fluctuation."""
    start = ase.build.bulk("Si", "diamond", a=5.43, cubic=True)
    start.positions += 0.05 * np.random.default_rng(1).standard_normal((8, 3))
    calculator = CrystalformerCalculator(random_crystalformer(1))
    spread = []
    for step in (1.0, 0.5):
        atoms = start.copy()
        atoms.calc = calculator
        thermal = np.random.default_rng(2).standard_normal((8, 3))
        atoms.set_momenta(thermal * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None])
        energies = []
        dynamics = VelocityVerlet(atoms, timestep=step * units.fs)
        dynamics.attach(lambda a=atoms, e=energies: e.append(a.get_total_energy()))
        dynamics.run(int(120 / step))
        energies = np.array(energies)[:: int(1 / step)]
        spread.append(energies.std() / 8)
    assert spread[0] < 1e-3
    assert 3.6 < spread[0] / spread[1] < 4.4
