import numpy as np
import pytest
from ase import Atoms

from pet_calc.workflows.observables import (
    cube_edge,
    finite_size_correction,
    mean_square_displacement,
    self_diffusion,
    site_displacement,
    unwrap,
)

D = 2.0e-4  # Å²/fs, that is 2 · 10⁻⁹ m²/s
DT = 10.0  # fs
EDGE = 9.0


def brownian(n_frames=2000, n_atoms=40, seed=0, drift=0.0):
    """Independent walkers with <Δr²> = 6 D Δt per frame, wrapped into the cell."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=np.sqrt(2 * D * DT), size=(n_frames, n_atoms, 3))
    paths = rng.uniform(0, EDGE, size=(n_atoms, 3)) + steps.cumsum(axis=0)
    paths += drift * np.arange(n_frames)[:, None, None]
    frames = [Atoms(f"O{n_atoms}", positions=x, cell=[EDGE] * 3, pbc=True) for x in paths]
    for atoms in frames:
        atoms.wrap()
    return frames


def test_msd_is_the_sum_over_time_origins():
    x = np.random.default_rng(3).normal(size=(50, 7, 3)).cumsum(axis=0) + 1e3
    expected = [((x[m:] - x[: len(x) - m]) ** 2).sum(axis=2).mean() for m in range(50)]
    assert mean_square_displacement(x) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-8)


def test_brownian_walk_has_its_diffusion_coefficient():
    found = [
        self_diffusion(unwrap(brownian(seed=s), DT), remove_drift=False, fit=(50.0, 500.0))
        for s in range(12)
    ]
    values = np.array([f.coefficient.value for f in found])
    errors = np.array([f.coefficient.error for f in found])
    assert abs(values.mean() - 2.0) < 3 * np.sqrt((errors**2).mean() / 12)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.6)
    assert errors.mean() < 0.15
    assert (np.abs(values - 2.0) < 4 * errors).all()
    assert all(abs(f.exponent - 1) < 0.1 for f in found)


def test_drift_is_removed():
    """Walkers less their center of mass diffuse by 1 - 1/N slower."""
    still, moving = (
        self_diffusion(unwrap(brownian(drift=x), DT), fit=(50.0, 500.0)) for x in (0.0, 0.05)
    )
    assert moving.coefficient.value == pytest.approx(still.coefficient.value, rel=1e-9)
    kept = self_diffusion(unwrap(brownian(drift=0.05), DT), fit=(50, 500), remove_drift=False)
    assert kept.coefficient.value > 20 * moving.coefficient.value
    assert still.coefficient.value == pytest.approx(2.0 * 39 / 40, rel=0.05)


def test_wrapped_positions_would_not_do():
    frames = brownian()
    paths = np.array([a.positions for a in frames])
    wrong = mean_square_displacement(paths)[50] / (6 * 50 * DT) * 1e4
    right = mean_square_displacement(unwrap(frames, DT).positions)[50] / (6 * 50 * DT) * 1e4
    assert right == pytest.approx(2.0, rel=0.1)
    assert wrong > 1.2 * right


def test_flight_and_rest_are_told_from_diffusion():
    rng = np.random.default_rng(4)
    velocity = rng.normal(scale=0.01, size=(30, 3))
    times = np.arange(200)[:, None, None]
    flight = [Atoms("Ar30", positions=x, cell=[9] * 3, pbc=True) for x in times * velocity]
    assert self_diffusion(unwrap(flight)).exponent == pytest.approx(2.0, abs=1e-6)
    sites = rng.uniform(0, 9, size=(30, 3))
    bound = [
        Atoms("Ar30", positions=x, cell=[9] * 3, pbc=True)
        for x in sites + rng.normal(scale=0.1, size=(400, 30, 3))
    ]
    motion = unwrap(bound)
    assert abs(self_diffusion(motion).exponent) < 0.05
    u2 = site_displacement(motion)
    expected = 3 * 0.1**2 * 29 / 30 * 399 / 400  # less the center of mass and the mean
    assert abs(u2.value - expected) < 4 * u2.error
    assert u2.error < 0.02 * expected


def test_finite_size_correction_of_water():
    """Yeh and Hummer's own figures: ξ k_B T / (6 π η L) at 300 K, 0.89 mPa·s, 12.42 Å."""
    expected = 2.837297 * 1.380649e-23 * 300 / (6 * np.pi * 0.89e-3 * 12.42e-10) * 1e9
    assert finite_size_correction(300.0, 12.42) == pytest.approx(expected, rel=1e-9)
    assert finite_size_correction(300.0, 24.84) == pytest.approx(expected / 2, rel=1e-9)
    assert finite_size_correction(300.0, 12.42, 1.78) == pytest.approx(expected / 2, rel=1e-9)
    with pytest.raises(ValueError, match="`viscosity` must be positive"):
        finite_size_correction(300.0, 12.0, 0.0)


def test_the_correction_is_for_cubes():
    assert cube_edge(np.eye(3)[None] * np.array([10.0, 10.02]).reshape(2, 1, 1)) == pytest.approx(
        10.01
    )
    for cell in (np.diag([10.0, 10, 11]), np.array([[10.0, 0, 0], [5, 8.66, 0], [0, 0, 10]])):
        with pytest.raises(ValueError, match="cubic cells"):
            cube_edge(cell[None])


def test_nonsense_is_refused():
    motion = unwrap(brownian(n_frames=40), DT)
    with pytest.raises(ValueError, match="needs two lags"):
        self_diffusion(motion, fit=(1e5, 2e5))
    with pytest.raises(ValueError, match="at least one atom"):
        self_diffusion(motion, np.zeros(40, dtype=bool))
    with pytest.raises(ValueError, match="at least 8 frames"):
        self_diffusion(unwrap(brownian(n_frames=5), DT))
    frames = brownian(n_frames=20)
    frames[10].numbers[:2] = 1
    with pytest.raises(ValueError, match="keep their species"):
        self_diffusion(unwrap(frames, DT))
