import numpy as np
import pytest
from ase import Atoms

from pet_calc.workflows.guards import GuardConfig, near_contact, non_finite


def test_contact_is_found_across_the_boundary():
    atoms = Atoms("OH", positions=[[0.1, 0, 0], [4.8, 0, 0]], cell=[5, 5, 5], pbc=True)
    found = near_contact(atoms, 0.6)
    assert found is not None
    assert set(found.atoms) == {0, 1}
    assert "(a periodic image)" in found.cause
    assert "0.300 Å" in found.cause
    atoms.pbc = False
    assert near_contact(atoms, 0.6) is None


@pytest.mark.parametrize(("distance", "fires"), [(0.57, True), (0.59, False)])
def test_contact_limit_follows_the_covalent_radii(distance, fires):
    atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, distance]])  # (0.66 + 0.31) * 0.6 = 0.582
    assert (near_contact(atoms, 0.6) is not None) == fires


def test_worst_pair_is_named():
    atoms = Atoms("OHCu2", positions=[[0, 0, 0], [0, 0, 0.5], [9, 0, 0], [9, 0, 0.9]])
    found = near_contact(atoms, 0.6)
    assert found is not None
    assert found.atoms == (2, 3)


def test_non_finite_numbers_are_found():
    atoms = Atoms("ArAr", positions=[[0, 0, 0], [0, 0, 4]])
    forces = np.zeros((2, 3))
    assert non_finite(atoms, 0.0, forces) is None
    found = non_finite(atoms, np.inf, forces)
    assert found is not None
    assert "energy" in found.cause
    forces[1, 0] = np.inf
    found = non_finite(atoms, 0.0, forces)
    assert found is not None
    assert found.atoms == (1,)


def test_temperature_limit_leaves_room_for_few_atoms():
    guards = GuardConfig()
    assert guards.hottest(300.0, 10**6) == pytest.approx(1500.0, rel=0.01)
    assert guards.hottest(2000.0, 10**6) == pytest.approx(10_000.0, rel=0.01)
    # the kinetic temperature of one atom at 300 K: chi squared of 3; none of a million exceeds it
    draws = 300.0 * np.random.default_rng(0).chisquare(3, size=10**6) / 3
    assert draws.max() < guards.hottest(300.0, 3)


def test_settings_refuse_nonsense():
    with pytest.raises(ValueError, match="`contact` must be a positive"):
        GuardConfig(contact=0.0)


@pytest.mark.parametrize("pbc", [True, False, (True, True, False)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["dense", "sparse"])
def test_contact_agrees_with_all_distances(pbc, scale):
    rng = np.random.default_rng(3)
    cell = scale * np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.5, 9.0]])
    for gap in (0.55, 0.62):  # O–H: 0.582 Å is the limit
        atoms = Atoms("OC6H", scaled_positions=spread(rng), cell=cell, pbc=pbc)
        atoms.positions[-1] = atoms.positions[0] + [0.0, 0.0, gap]
        atoms.positions[-1] += cell[0] if atoms.pbc[0] else 0.0
        found = near_contact(atoms, 0.6)
        assert (found is not None) == (gap < 0.582)
        assert found is None or set(found.atoms) == {0, 7}


def spread(rng):
    """Corners of a cube of a third of the cell, jittered; far from each other."""
    corners = np.array(list(np.ndindex(2, 2, 2))) / 2.0 + 0.2
    return corners + rng.uniform(-0.02, 0.02, corners.shape)


def test_sparse_systems_cost_no_empty_cells():
    import time

    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 500]], cell=[500, 500, 900], pbc=True)
    started = time.perf_counter()
    for _ in range(10):
        near_contact(atoms, 0.6)
    assert time.perf_counter() - started < 0.1  # 10 ms each; 28 ms with cells of contact size
