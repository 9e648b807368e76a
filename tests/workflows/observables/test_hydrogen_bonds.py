import numpy as np
import pytest
from ase import Atoms

from pet_calc.workflows.observables.hydrogen_bonds import frame_hydrogen_bonds, hydrogen_bonds
from pet_calc.workflows.water_box import water_box


def cubic_ice(n=2, r_OO=2.76, r_OH=0.98):
    """Ordered cubic ice: oxygens on a diamond lattice, two hydrogens given and two received."""
    a = r_OO * 4 / np.sqrt(3)
    fcc = a / 2 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    towards = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    first, second = fcc, fcc + r_OO * towards[0]
    hydrogens = [first + r_OH * towards[k] for k in (0, 1)]
    hydrogens += [second - r_OH * towards[k] for k in (2, 3)]
    ice = Atoms(
        "O8H16", positions=np.concatenate([first, second, *hydrogens]), cell=[a] * 3, pbc=True
    )
    return ice * (n, n, n)


@pytest.mark.parametrize("n", [1, 2])
def test_ice_has_four_bonds_per_molecule(n):
    ice = cubic_ice(n)
    ice.positions += 0.4
    ice.wrap()
    donors, acceptors = frame_hydrogen_bonds(ice)
    oxygen = np.flatnonzero(ice.numbers == 8)
    assert (np.bincount(donors, minlength=len(ice))[oxygen] == 2).all()
    assert (np.bincount(acceptors, minlength=len(ice))[oxygen] == 2).all()
    found = hydrogen_bonds([ice] * 10)
    assert found.per_molecule == (4.0, 0.0)
    assert found.distribution == pytest.approx([0, 0, 0, 0, 1])


def test_a_stretched_ice_has_none():
    assert hydrogen_bonds([cubic_ice(r_OO=3.6)]).per_molecule.value == 0.0
    assert hydrogen_bonds([cubic_ice(r_OO=3.4)]).per_molecule.value == 4.0


@pytest.mark.parametrize(("angle", "bonded"), [(0.0, 1), (29.0, 1), (31.0, 0), (180.0, 0)])
def test_the_angle_decides(angle, bonded):
    phi = np.radians(angle)
    dimer = Atoms(
        "OHOH2",
        positions=[
            [0, 0, 0],
            [0.97 * np.cos(phi), 0.97 * np.sin(phi), 0],
            [2.9, 0, 0],
            [3.5, 0.76, 0],
            [3.5, -0.76, 0],
        ],
    )
    donors, acceptors = frame_hydrogen_bonds(dimer)
    assert donors.tolist() == [0] * bonded
    assert acceptors.tolist() == [2] * bonded


def test_order_of_atoms_does_not_matter():
    box = water_box(16, seed=2, sweeps=20)
    shuffled = box[np.random.default_rng(0).permutation(len(box))]
    assert len(frame_hydrogen_bonds(shuffled)[0]) == len(frame_hydrogen_bonds(box)[0])
    shuffled.wrap()
    assert hydrogen_bonds([shuffled]).per_molecule == hydrogen_bonds([box]).per_molecule


def test_what_is_not_water_is_refused():
    with pytest.raises(ValueError, match="need oxygen and hydrogen"):
        hydrogen_bonds([Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])])
    torn = Atoms("O2H2", positions=[[0, 0, 0], [3, 0, 0], [1, 0, 0], [0, 0, 5]])
    with pytest.raises(ValueError, match="every hydrogen must have an oxygen"):
        hydrogen_bonds([torn])
    with pytest.raises(ValueError, match="at least one structure"):
        hydrogen_bonds([])
