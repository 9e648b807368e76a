import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from pet_calc.workflows.observables import (
    crystal_shells,
    distance_shells,
    mean_structure,
    unwrap,
    warren_cowley,
    warren_cowley_series,
)

B2 = Atoms("NiAl", positions=[[0, 0, 0], [1.44] * 3], cell=[2.88] * 3, pbc=True)
L12 = bulk("Cu", cubic=True)
L12.numbers[0] = 79  # Cu3Au


def alpha(atoms, center, neighbor, **options):
    shells = crystal_shells(atoms, **options)
    symbols, values = warren_cowley(atoms.numbers, shells)
    return values[:, symbols.index(center), symbols.index(neighbor)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_b2(n):
    atoms = B2 * (n, n, n)
    assert alpha(atoms, "Ni", "Al", n_shells=3) == pytest.approx([-1, 1, 1])
    assert alpha(atoms, "Ni", "Ni", n_shells=3) == pytest.approx([1, -1, -1])
    shells = crystal_shells(atoms)
    assert shells.crystal == "bcc"
    assert shells.radii == pytest.approx([1.44 * 3**0.5, 2.88])


@pytest.mark.parametrize("n", [1, 2])
def test_l12(n):
    atoms = L12 * (n, n, n)
    assert crystal_shells(atoms).crystal == "fcc"
    # Cu: 4 of 12 neighbors are Au, c = 1/4; Au: 12 of 12 are Cu, c = 3/4
    assert alpha(atoms, "Cu", "Au", n_shells=3) == pytest.approx([-1 / 3, 1, -1 / 3])
    assert alpha(atoms, "Au", "Cu", n_shells=3) == pytest.approx([-1 / 3, 1, -1 / 3])
    assert alpha(atoms, "Au", "Au", n_shells=2) == pytest.approx([1, -3])


def test_random_alloy_has_no_order():
    rng = np.random.default_rng(0)
    atoms = bulk("W", cubic=True) * (4, 4, 4)
    species = np.repeat([41, 42, 73, 74], 32)
    shells = crystal_shells(atoms)
    values = np.array([warren_cowley(rng.permutation(species), shells)[1] for _ in range(400)])
    mean, error = values.mean(axis=0), values.std(axis=0) / 20
    unlike = ~np.eye(4, dtype=bool)
    # without replacement, an atom sees slightly more of the others than their concentration
    off = (mean[:, unlike] + 1 / 127) / error[:, unlike]
    assert np.abs(off).max() < 4
    assert error.max() < 0.01


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        (bulk("Cu", cubic=True) * 2, "fcc"),
        (bulk("W", cubic=True) * 2, "bcc"),
        (bulk("Mg") * (3, 3, 2), "hcp"),
        (bulk("Si", cubic=True), "diamond"),
        (bulk("Po", "sc", a=3.35) * 3, "sc"),
        (bulk("W"), "bcc"),
    ],
    ids=["fcc", "bcc", "hcp", "diamond", "sc", "primitive"],
)
def test_lattices_are_recognized(structure, name):
    shells = crystal_shells(structure, n_shells=1)
    assert shells.crystal == name
    n = {"fcc": 12, "bcc": 8, "hcp": 12, "diamond": 4, "sc": 6}[name]
    assert (np.bincount(shells.pairs[0][0]) == n).all()
    assert crystal_shells(structure, crystal=name, n_shells=1).crystal == name


def hot(atoms, n_frames, scale, seed=1):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        frame = atoms.copy()
        frame.positions += rng.normal(scale=scale, size=frame.positions.shape)
        frame.wrap()
        frames.append(frame)
    return frames


def test_hot_crystal_is_sorted_on_its_mean_sites():
    frames = hot(B2 * (3, 3, 3), 60, 0.25)
    with pytest.raises(ValueError, match="must be a full crystal lattice"):
        crystal_shells(frames[0])
    sites = mean_structure(unwrap(frames))
    order = warren_cowley_series(frames, crystal_shells(sites))
    assert order.estimate(0, "Ni", "Al") == (-1.0, 0.0)
    assert order.estimate(1, "Ni", "Al") == (1.0, 0.0)


def test_swapped_species_are_seen_at_fixed_sites():
    atoms = B2 * (3, 3, 3)
    frames = hot(atoms, 20, 0.05)
    for frame in frames[10:]:
        frame.numbers[[0, 1]] = frame.numbers[[1, 0]]
    motion = unwrap(frames)
    assert motion.species_change
    order = warren_cowley_series(frames, crystal_shells(mean_structure(motion)))
    series = order.series[:, 0, order.symbols.index("Ni"), order.symbols.index("Al")]
    assert (series[:10] == -1).all()
    assert (series[10:] > -1).all()


def test_vacancies_and_liquids_are_refused():
    vacancy = (B2 * (3, 3, 3))[1:]
    with pytest.raises(ValueError, match="must be a full crystal lattice"):
        crystal_shells(vacancy)
    shells = distance_shells(vacancy, [(0.0, 2.7), (2.7, 3.5)])
    symbols, values = warren_cowley(vacancy.numbers, shells)
    assert values[0, symbols.index("Ni"), symbols.index("Al")] < -0.95
    with pytest.raises(ValueError, match="`n_shells` must be"):
        crystal_shells(B2, n_shells=4)
    with pytest.raises(ValueError, match="`crystal` must be one of"):
        crystal_shells(B2, crystal="a15")
    with pytest.raises(ValueError, match="0 <= lower < upper"):
        distance_shells(B2, [(3.0, 2.0)])
