import numpy as np
import pytest
from ase.build import bulk
from scipy.signal import lfilter

from pet_calc.units import GPA, K_B
from pet_calc.workflows.observables import (
    cubic_lattice_constant,
    density,
    heat_capacity,
    kinetic_temperature,
    thermal_expansion,
)
from pet_calc.workflows.water_box import water_box

N, T = 50, 400.0


def harmonic_energies(n_samples, seed=0, phi=0.9):
    """Potential energy of 3N classical oscillators: a sum of correlated squared coordinates."""
    noise = np.random.default_rng(seed).normal(size=(n_samples + 200, 3 * N)) * np.sqrt(1 - phi**2)
    x = lfilter([1.0], [1.0, -phi], noise, axis=0)[200:]
    return 0.5 * K_B * T * (x**2).sum(axis=1)


def test_harmonic_solid_has_dulong_and_petit():
    found = [heat_capacity(harmonic_energies(4000, seed), T, N) for seed in range(8)]
    values, errors = np.array(found).T
    assert abs(values.mean() - 3.0) < 3 * np.sqrt((errors**2).sum()) / 8
    assert errors.mean() < 0.15
    wrong = heat_capacity(harmonic_energies(4000), 1.2 * T, N)
    assert abs(wrong.value - 3.0) > 3 * wrong.error  # another temperature is noticed


def test_constant_pressure():
    """A gas of N free particles at p: U = 0, <V> = (N + 1) kT / p, C_p = 5/2, α = 1/T."""
    kT, p = K_B * T, 0.02
    volumes = np.random.default_rng(2).gamma(N + 1, kT / (p * GPA), size=40000)
    zero = np.zeros(len(volumes))
    cp = heat_capacity(zero, T, N, volumes=volumes, pressure=p)
    assert abs(cp.value - (1.5 + (N + 1) / N)) < 4 * cp.error
    alpha = thermal_expansion(zero, volumes, T, pressure=p)
    assert abs(alpha.value - 1 / T) < 4 * alpha.error
    assert alpha.error < 0.03 / T
    assert heat_capacity(zero, T, N, volumes=volumes, pressure=0.0).value == 1.5


def test_lattice_constant_and_density():
    for crystal, a in (("fcc", 3.61), ("bcc", 3.165), ("diamond", 5.43), ("sc", 3.35)):
        atoms = bulk("Cu", crystal, a=a) * (2, 3, 1)
        found = cubic_lattice_constant(atoms.cell.volume, len(atoms), crystal)
        assert found == pytest.approx(a)
    with pytest.raises(ValueError, match="must be one of"):
        cubic_lattice_constant(10.0, 1, "hcp")
    assert density(water_box(16, density=0.9, sweeps=0)) == pytest.approx(0.9)
    atoms = bulk("Cu")
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match="three periodic directions"):
        density(atoms)


def test_temperature_counts_what_moves():
    rng = np.random.default_rng(3)
    frames, free = [], []
    for _ in range(200):
        atoms = bulk("Cu", cubic=True)
        p = rng.normal(size=(4, 3)) * np.sqrt(atoms.get_masses()[:, None] * K_B * 300)
        for values, kept in ((p, free), (p - p.mean(axis=0), frames)):
            atoms = atoms.copy()
            atoms.set_momenta(values)
            kept.append(atoms)
    for series in (frames, free):
        found = kinetic_temperature(series)
        assert abs(found.value - 300) < 4 * found.error
    assert kinetic_temperature([bulk("Cu")]) is None
