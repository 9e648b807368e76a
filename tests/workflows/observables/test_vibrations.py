import numpy as np
import pytest
from ase import Atoms

from pet_calc.units import FS, THZ_TO_INVERSE_CM
from pet_calc.workflows.observables import unwrap, vibrational_spectrum


def oscillators(frequencies, interval, n_frames=4000, momenta=True, symbols=None, seed=0):
    """Pairs of atoms that oscillate along x against each other, at frequencies in THz.

    All have the same kinetic energy, and the center of mass stays.
    """
    rng = np.random.default_rng(seed)
    n = len(frequencies)
    symbols = [s for s in symbols or n * ["Cu"] for _ in range(2)]
    atoms = Atoms(symbols, positions=rng.uniform(0, 10, (2 * n, 3)), cell=[10] * 3, pbc=True)
    sites = atoms.get_positions()
    omega = 2 * np.pi * np.repeat(frequencies, 2) * 1e-3  # 1/fs
    phase = np.repeat(rng.uniform(0, 2 * np.pi, n), 2)
    amplitude = np.tile([0.01, -0.01], n) / (omega * np.sqrt(atoms.get_masses()))
    frames = []
    for t in np.arange(n_frames) * interval:
        frame = atoms.copy()
        frame.positions[:, 0] = sites[:, 0] + amplitude * np.sin(omega * t + phase)
        if momenta:
            v = np.zeros((2 * n, 3))
            v[:, 0] = amplitude * omega * np.cos(omega * t + phase) / FS
            frame.set_velocities(v)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("momenta", [True, False])
@pytest.mark.parametrize("frequency", [5.0, 12.3, 24.0])
def test_oscillator_peaks_at_its_frequency(frequency, momenta):
    motion = unwrap(oscillators([frequency], 5.0, momenta=momenta), 5.0)
    spectrum = vibrational_spectrum(motion, resolution=10.0)
    assert spectrum.from_positions is not momenta
    peak = spectrum.frequency[spectrum.density.argmax()]
    assert abs(peak - frequency) <= spectrum.frequency[1]
    assert np.trapezoid(spectrum.density, spectrum.frequency) == pytest.approx(1.0)
    assert spectrum.wavenumber == pytest.approx(spectrum.frequency * THZ_TO_INVERSE_CM)


def test_equal_energies_give_equal_areas():
    """Also from positions, whose differences attenuate the fast vibration by 0.74."""
    areas = []
    for momenta in (True, False):
        motion = unwrap(oscillators([6.0, 60.0], 5.0, momenta=momenta, symbols="CO"), 5.0)
        spectrum = vibrational_spectrum(motion)
        low = spectrum.frequency < 30
        areas.append(np.trapezoid(np.where(low, spectrum.density, 0.0), spectrum.frequency))
    assert np.sinc(60e-3 * 5.0) ** 2 < 0.75  # without its correction the test would fail
    assert areas == pytest.approx([0.5, 0.5], abs=0.03)


def test_elements_add_up():
    motion = unwrap(oscillators([6.0, 60.0, 30.0], 2.0, symbols="COC"), 2.0)
    spectrum = vibrational_spectrum(motion)
    assert set(spectrum.elements) == {"C", "O"}
    assert sum(spectrum.elements.values()) == pytest.approx(spectrum.density)
    oxygen = spectrum.elements["O"]
    assert abs(spectrum.frequency[oxygen.argmax()] - 60.0) < 1.0


def test_error_bars_cover_noise():
    """White noise has a flat spectrum, 1 / Nyquist, and errors of known size."""
    rng = np.random.default_rng(1)
    atoms = Atoms("Cu8", positions=rng.uniform(0, 10, (8, 3)), cell=[10] * 3, pbc=True)
    frames = []
    for _ in range(3000):
        atoms.set_momenta(rng.normal(size=(8, 3)))
        frames.append(atoms.copy())
    spectrum = vibrational_spectrum(unwrap(frames, 5.0), resolution=50.0)
    inner = slice(3, -3)
    off = (spectrum.density[inner] - 1 / 100.0) / spectrum.error[inner]
    assert off.std() == pytest.approx(1.0, abs=0.3)


def test_sparse_frames_are_refused():
    frames = oscillators([5.0, 6.0], 20.0, n_frames=100)
    with pytest.raises(ValueError, match=r"every 16\.7 fs or more often"):
        vibrational_spectrum(unwrap(frames, 20.0))
    water = oscillators([5.0, 6.0, 7.0], 5.0, n_frames=100, symbols="OHH")
    with pytest.raises(ValueError, match="reach 125 THz"):
        vibrational_spectrum(unwrap(water, 5.0))
    vibrational_spectrum(unwrap(water, 4.0))


def test_atoms_at_rest_are_refused():
    frames = [Atoms("Cu2", positions=[[0, 0, 0], [2, 0, 0]], cell=[9] * 3, pbc=True)] * 30
    with pytest.raises(ValueError, match="atoms that move"):
        vibrational_spectrum(unwrap(frames, 5.0))
    with pytest.raises(ValueError, match="at least 17 frames"):
        vibrational_spectrum(unwrap(frames[:10], 5.0))
