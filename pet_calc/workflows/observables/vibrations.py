"""Vibrational density of states: the power spectrum of the velocities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.signal
from ase.data import chemical_symbols
from numpy.typing import NDArray

from pet_calc.units import THZ_TO_INVERSE_CM
from pet_calc.workflows.observables.motion import Motion

Array = NDArray[np.float64]

HANN_OVERLAP = np.sqrt(1.0 + 2.0 / 36.0)
"""Error of the mean over half-overlapping Hann windows against that over independent ones: the
spectra of neighbors are correlated by (1/6)² (Welch, IEEE Trans. Audio 15, 70 (1967))."""


@dataclass(frozen=True, eq=False)
class VibrationalSpectrum:
    """Density of vibrational states of all atoms, and the part of each element.

    Attributes
    ----------
    frequency : array, shape (n_frequencies,)
        THz, up to half the sampling rate.
    density, error : arrays, shape (n_frequencies,)
        1/THz; the integral over frequency is 1. The error, from the scatter of the windows, is NaN
        for a single window.
    elements : dict of str to array
        Contributions by symbol, which add up to `density`.
    n_windows : int
        Windows averaged.
    from_positions : bool
        Whether velocities came from differences of positions.
    """

    frequency: Array
    density: Array
    error: Array
    elements: dict[str, Array]
    n_windows: int
    from_positions: bool

    @property
    def wavenumber(self) -> Array:
        """cm⁻¹."""
        return self.frequency * THZ_TO_INVERSE_CM


def highest_vibration(numbers: NDArray[np.int64]) -> float:
    """A frequency in THz above all vibrations of such matter, by its lightest bonds.

    125 THz with hydrogen (H2 4161 cm⁻¹), 75 with B, C, N, O or F (N2 2331 cm⁻¹), 30 otherwise.
    """
    if 1 in numbers:
        return 125.0
    return 75.0 if np.isin(numbers, (5, 6, 7, 8, 9)).any() else 30.0


def centered_velocities(motion: Motion) -> Array:
    """Velocities less that of the center of mass, Å/fs; from positions where there are none."""
    if motion.velocities is None:
        return np.asarray(np.diff(motion.centered, axis=0) / motion.interval)
    weights = motion.masses[:, None] / motion.masses.sum()
    drift = (motion.velocities * weights).sum(axis=1, keepdims=True)
    return np.asarray(motion.velocities - drift)


def vibrational_spectrum(motion: Motion, *, resolution: float = 20.0) -> VibrationalSpectrum:
    r"""Mass-weighted power spectrum of the velocities, by Welch's method.

    .. math:: g(\nu) \propto \sum_i m_i \int \langle v_i(0) \cdot v_i(t) \rangle\,
       e^{2\pi \mathrm{i} \nu t}\,\mathrm{d}t

    which for harmonic vibrations is the density of states (Dickey and Paskin, Phys. Rev. 188, 1407
    (1969)), here normalized to 1. Half-overlapping Hann windows. Velocities are those of the frames
    if all have momenta; otherwise differences of positions between frames, whose attenuation
    :math:`\mathrm{sinc}^2(\nu \Delta t)` is divided out.

    Parameters
    ----------
    motion : Motion
        Unwrapped paths.
    resolution : float
        cm⁻¹; windows are its inverse long, or as long as the trajectory.

    Raises
    ------
    ValueError
        If frames are so far apart that vibrations of these elements would appear at lower
        frequencies than they have.
    """
    if motion.species_change:
        raise ValueError(
            "a vibrational spectrum needs atoms that keep their species, but they change on the "
            "way (swap moves?); analyze a run without swaps"
        )
    nyquist, needed = 500.0 / motion.interval, highest_vibration(motion.numbers)
    if nyquist < needed:
        raise ValueError(
            f"frames {motion.interval:g} fs apart resolve frequencies up to {nyquist:.0f} THz, but "
            f"vibrations of these elements reach {needed:.0f} THz and would be folded back; write "
            f"a frame every {500.0 / needed:.3g} fs or more often"
        )
    if not resolution > 0:
        raise ValueError(f"`resolution` must be positive, got {resolution} cm⁻¹")
    from_positions = motion.velocities is None
    velocities = centered_velocities(motion)
    window = round(1e3 / (resolution / THZ_TO_INVERSE_CM) / motion.interval)
    window = min(max(window, 16), len(velocities))
    if window < 16:
        raise ValueError(f"a spectrum needs at least 17 frames, got {len(motion)}")

    elements = {chemical_symbols[z]: motion.numbers == z for z in np.unique(motion.numbers)}
    starts = range(0, len(velocities) - window + 1, window // 2)
    spectra = np.zeros((len(starts), len(elements), window // 2 + 1))
    for k, start in enumerate(starts):
        frequency, power = scipy.signal.periodogram(
            velocities[start : start + window],
            fs=1e3 / motion.interval,
            window="hann",
            detrend=False,
            axis=0,
        )
        for e, chosen in enumerate(elements.values()):
            spectra[k, e] = np.einsum("fnc,n->f", power[:, chosen], motion.masses[chosen])
    if from_positions:
        spectra /= np.sinc(frequency * motion.interval * 1e-3) ** 2
    n_windows = len(starts)
    parts = spectra.mean(axis=0)
    area = np.trapezoid(parts.sum(axis=0), frequency)
    if not area > 0:
        raise ValueError("a spectrum needs atoms that move, but all velocities are zero")
    total = spectra.sum(axis=1)
    error = (
        total.std(axis=0, ddof=1) / np.sqrt(n_windows) * HANN_OVERLAP
        if n_windows > 1
        else np.full(len(frequency), np.nan)
    )
    return VibrationalSpectrum(
        frequency=frequency,
        density=parts.sum(axis=0) / area,
        error=error / area,
        elements={symbol: part / area for symbol, part in zip(elements, parts, strict=True)},
        n_windows=n_windows,
        from_positions=from_positions,
    )
