"""ECSE of models under charge and spin, and of committees."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from calculators.small_potentials import liquid, rare_pet, small_pet
from scipy.spatial.transform import Rotation

from pet_calc import PETCalculator
from pet_calc.models.pet import PET

LOCAL = {"num_gnn_layers": 1, "featurizer_type": "residual"}
MODELS = {"structure": {}, "local": LOCAL, "layerwise": {"ecse": "layerwise"}}


def charged(atoms: Atoms, charge: int, spin: int) -> Atoms:
    atoms = atoms.copy()
    atoms.info |= {"charge": charge, "spin_multiplicity": spin}
    return atoms


def turned(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    matrix = -Rotation.random(random_state=6).as_matrix()
    atoms = atoms.copy()
    atoms.set_cell(np.array(atoms.cell) @ matrix)
    atoms.positions = atoms.positions @ matrix
    return atoms, matrix


def symmetric(calculator: PETCalculator, atoms: Atoms) -> None:
    energy, forces = calculator.get_property("energy", atoms), calculator.get_forces(atoms)
    other, matrix = turned(atoms)
    assert abs(calculator.get_property("energy", other) - energy) < 1e-10 * len(atoms)
    assert np.abs(calculator.get_forces(other) - forces @ matrix).max() < 1e-9
    assert np.abs(forces).max() > 1e-3


@pytest.mark.parametrize("name", sorted(MODELS))
def test_charge_and_spin(name: str) -> None:
    model = rare_pet(system_conditioning=True, **MODELS[name])
    calculator = PETCalculator(model, ecse="auto")
    water = liquid(1, length=4.0)
    energies = []
    for charge, spin in ((0, 1), (1, 2), (-2, 3)):
        atoms = charged(water, charge, spin)
        symmetric(calculator, atoms)
        energies.append(calculator.get_property("energy", atoms))
        if name != "layerwise":
            # what is averaged is the plain model in the same state
            plain = PETCalculator(model, ecse=False).get_property("energy", atoms)
            assert 1e-10 < abs(energies[-1] - plain) < 1.0
    assert np.abs(np.diff(energies)).min() > 1e-4


def test_a_charged_crystal_has_merged_views() -> None:
    """The network sees the charge of the right atoms in the copies that are left."""
    model = rare_pet(elements=(8, 14), system_conditioning=True)
    crystal = charged(bulk("SiO", "rocksalt", a=4.4), 1, 2)
    found = PETCalculator(model, ecse="auto").get_property("energy", crystal)
    rattled = crystal.copy()
    rattled.positions[0, 0] += 1e-9  # symmetry that is not exact: all views
    every = PETCalculator(model, ecse="auto").get_property("energy", rattled)
    assert found == pytest.approx(every, abs=1e-9)
    neutral = PETCalculator(model, ecse="auto").get_property("energy", charged(crystal, 0, 1))
    assert abs(found - neutral) > 1e-4


def test_committees() -> None:
    members: list[PET] = [small_pet(seed=k) for k in range(3)]
    calculator = PETCalculator(members, ecse="auto")
    water = liquid(1, length=4.0)
    symmetric(calculator, water)
    single = [PETCalculator(m, ecse="auto").get_property("energy", water) for m in members]
    assert calculator.get_property("energy", water) == pytest.approx(np.mean(single), abs=1e-9)
    spread = calculator.get_property("energy_uncertainty", water)
    assert spread == pytest.approx(np.std(single, ddof=1), abs=1e-9)
    other, _ = turned(water)
    ensemble = calculator.get_property("energy_ensemble", water)
    assert calculator.get_property("energy_ensemble", other) == pytest.approx(ensemble, abs=1e-9)
    forces = calculator.get_property("forces_uncertainty", bulk_of_water())
    assert forces.shape == (3, 3)


def bulk_of_water() -> Atoms:
    return liquid(1, seed=5, length=4.0)


def test_committees_of_different_kinds() -> None:
    """Each member is made symmetric in its own way; conditions go to those that know them."""
    members = [small_pet(), rare_pet(**LOCAL), rare_pet(1, system_conditioning=True)]
    symmetric(PETCalculator(members, ecse="auto"), liquid(1, length=4.0))
    with pytest.raises(ValueError, match="its neighbors alone"):
        PETCalculator(members, ecse="local").get_potential_energy(liquid(1, length=4.0))
    with pytest.raises(ValueError, match="does not support charged systems"):
        PETCalculator(members, ecse="auto").get_potential_energy(charged(liquid(1), 1, 1))
