import numpy as np
import pytest
from ase import units
from ase.geometry import get_distances

from pet_calc.workflows.water_box import (
    SPC_E,
    _PairTable,
    box_length,
    equilibrate,
    lattice,
    place,
    random_rotations,
    water_box,
)


def closest(atoms):
    """Smallest O–O, O–H and H–H distances between molecules, by minimum image."""
    _, d = get_distances(atoms.positions, cell=atoms.cell, pbc=True)
    molecule = np.arange(len(atoms)) // 3
    d[molecule[:, None] == molecule[None]] = np.inf
    o, h = atoms.numbers == 8, atoms.numbers == 1
    return d[np.ix_(o, o)].min(), d[np.ix_(o, h)].min(), d[np.ix_(h, h)].min()


@pytest.mark.parametrize(
    "molecules", [8, 27, 33, 64, pytest.param(512, marks=pytest.mark.slow)], ids=str
)
def test_box_is_liquid_like(molecules):
    atoms = water_box(molecules, seed=2)
    assert len(atoms) == 3 * molecules
    assert atoms.pbc.all()
    grams = atoms.get_masses().sum() / units.mol
    assert grams / (atoms.cell.volume * 1e-24) == pytest.approx(1.0, rel=1e-3)
    oo, oh, hh = closest(atoms)
    assert oo > 2.3
    assert oh > 1.4
    assert hh > 1.4
    sites = atoms.positions.reshape(-1, 3, 3)
    bonds = np.linalg.norm(sites[:, 1:] - sites[:, :1], axis=-1)
    assert bonds == pytest.approx(0.98)
    hh_inside = np.linalg.norm(sites[:, 1] - sites[:, 2], axis=-1)
    assert hh_inside == pytest.approx(2 * 0.98 * np.sin(np.deg2rad(105.5) / 2))


def energy_per_molecule(sites, length):
    """kJ/mol by a double loop over molecules and the untabulated model."""
    cutoff = min(length / 2, 9.0)
    total = 0.0
    for i in range(len(sites)):
        for j in range(i):
            d = sites[i][:, None] - sites[j][None]
            r = np.linalg.norm(d - length * np.rint(d / length), axis=-1)
            e = SPC_E.pair_energies(r.ravel(), cutoff).reshape(3, 3, 3)
            kind = np.array([[0, 1, 1], [1, 2, 2], [1, 2, 2]])
            total += np.take_along_axis(e, kind[None], axis=0).sum()
    return total / len(sites) * units.mol / units.kJ


def test_monte_carlo_forms_hydrogen_bonds():
    rng = np.random.default_rng(0)
    n, length = 27, box_length(27, 1.0)
    oxygen, frames = lattice(n, length, rng), random_rotations(n, rng)
    start = place(oxygen, frames, SPC_E.r_oh, SPC_E.angle)
    end = place(
        *equilibrate(oxygen, frames, length, rng, sweeps=200, temperature=300.0),
        SPC_E.r_oh,
        SPC_E.angle,
    )
    assert energy_per_molecule(start, length) > -10  # the control
    assert energy_per_molecule(end, length) < -28


def test_pair_table_follows_the_model():
    rng = np.random.default_rng(1)
    n, length = 27, box_length(27, 1.0)
    sites = place(
        *equilibrate(  # without overlaps, where the table has a wall of its own
            lattice(n, length, rng), random_rotations(n, rng), length, rng, 20, 300.0
        ),
        SPC_E.r_oh,
        SPC_E.angle,
    )
    table = _PairTable(SPC_E, length / 2)
    total = sum(table.energies(sites[i], sites[:i], length).sum() for i in range(1, n))
    exact = energy_per_molecule(sites, length) * n * units.kJ / units.mol
    assert total == pytest.approx(exact, abs=0.02 * n)


def test_damped_shifted_coulomb_is_smooth_at_the_cutoff():
    cutoff = 6.0
    r = cutoff + np.array([-2e-3, -1e-3])
    energies = SPC_E.pair_energies(r, cutoff)
    assert np.abs(energies[1:]).max() < 1e-7
    assert np.abs(np.diff(energies[1:], axis=1)).max() < 1e-7


def test_same_seed_same_box():
    one, two, other = (water_box(8, seed=seed).positions for seed in (4, 4, 5))
    assert (one == two).all()
    assert not np.allclose(one, other)


def test_rotations_are_proper():
    r = random_rotations(100, np.random.default_rng(0))
    assert np.einsum("nij,nkj->nik", r, r) == pytest.approx(np.broadcast_to(np.eye(3), r.shape))
    assert np.linalg.det(r) == pytest.approx(1.0)


def test_one_molecule():
    assert len(water_box(1)) == 3


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 27, 33, 65])
def test_lattice_points_are_apart(n):
    points = lattice(n, 10.0, np.random.default_rng(0))
    assert points.shape == (n, 3)
    d = points[:, None] - points[None] + 1e6 * np.eye(n)[:, :, None]
    d -= 10.0 * np.rint(d / 10.0) * (1 - np.eye(n)[:, :, None])
    assert np.linalg.norm(d, axis=-1).min() > 10.0 / (1.8 * np.ceil(n ** (1 / 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"molecules": 0}, "`molecules` must be at least 1"),
        ({"density": 0.0}, "`density` must lie"),
        ({"density": float("nan")}, "`density` must lie"),
        ({"sweeps": -1}, "`sweeps` must not"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        water_box(**arguments)
