"""Mean-square displacements and self-diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.constants
import scipy.fft
from numpy.typing import NDArray

from pet_calc.units import K_B
from pet_calc.workflows.observables.config import WATER_VISCOSITY
from pet_calc.workflows.observables.motion import Motion
from pet_calc.workflows.statistics import Estimate, block_mean, standard_error

Array = NDArray[np.float64]

A2_PER_FS_TO_1E9_M2_PER_S = 1e4
"""1 Å²/fs in 10⁻⁹ m²/s, the unit of diffusion coefficients here."""

WATER_DIFFUSION = Estimate(2.299, 0.005)
"""Self-diffusion of water at 298.15 K, 10⁻⁹ m²/s (Holz et al., Phys. Chem. Chem. Phys. 2, 4740
(2000), whose stated accuracy is 0.2 %)."""

YEH_HUMMER_XI = 2.837297
"""Madelung-like constant of a cubic lattice."""


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Mean-square displacement of one set of atoms and the diffusion coefficient from its slope.

    Attributes
    ----------
    lag : array, shape (n_lags,)
        fs.
    msd, error : arrays, shape (n_lags,)
        Å², and its standard error from parts of the trajectory (NaN for one part).
    fit : tuple of float
        First and last lag of the fit, fs.
    coefficient : Estimate
        Slope of the fit over 6, 10⁻⁹ m²/s.
    exponent : float
        Slope of ln MSD against ln t over the fit: 1 for diffusion, 2 for free flight, 0 for atoms
        bound to sites. The coefficient has a meaning near 1 only.
    """

    lag: Array
    msd: Array
    error: Array
    fit: tuple[float, float]
    coefficient: Estimate
    exponent: float


def mean_square_displacement(positions: Array) -> Array:
    r"""Mean-square displacement over all atoms and time origins.

    .. math:: \mathrm{MSD}(m) = \frac{1}{N (F - m)} \sum_i \sum_{t=0}^{F-m-1}
       |r_i(t + m) - r_i(t)|^2

    By fast Fourier transform, in F ln F operations (Calandrini et al., Collection SFN 12, 201
    (2011)).

    Parameters
    ----------
    positions : array, shape (n_frames, n_atoms, 3)
        Unwrapped, Å.

    Returns
    -------
    array, shape (n_frames,)
        Å²; index m is a lag of m frames.
    """
    n_frames, n_atoms, _ = positions.shape
    n_terms = n_frames - np.arange(n_frames)
    total = np.zeros(n_frames)
    size = scipy.fft.next_fast_len(2 * n_frames, real=True)
    for start in range(0, n_atoms, 64):  # keeps the transforms small
        x = positions[:, start : start + 64]
        x = x - x.mean(axis=0)  # squares of large numbers would cancel badly
        power = np.abs(scipy.fft.rfft(x, n=size, axis=0)) ** 2
        cross = scipy.fft.irfft(power.sum(axis=(1, 2)), n=size)[:n_frames]
        square = np.concatenate([[0.0], np.cumsum((x**2).sum(axis=(1, 2)))])
        ends = square[n_frames] - square[:n_frames] + square[n_frames - np.arange(n_frames)]
        total += ends - 2.0 * cross
    return np.asarray(np.maximum(total, 0.0) / (n_terms * n_atoms))


def self_diffusion(
    motion: Motion,
    atoms: NDArray[np.bool_] | None = None,
    *,
    fit: tuple[float, float] | None = None,
    n_blocks: int = 5,
    remove_drift: bool = True,
) -> Diffusion:
    r"""Diffusion coefficient from the slope of the mean-square displacement.

    .. math:: D = \frac{1}{6} \frac{\mathrm{d}}{\mathrm{d}t} \mathrm{MSD}(t)
       \qquad \text{(Einstein 1905)}

    by least squares over the lags of `fit`. The error is that of the mean over `n_blocks`
    consecutive parts of the trajectory, each with its own displacements and fit.

    Parameters
    ----------
    motion : Motion
        Unwrapped paths.
    atoms : array of bool, shape (n_atoms,), optional
        Which atoms; by default all.
    fit : tuple of float, optional
        Range of lags, fs; by default from a fifth of the longest lag, which is half of a part.
    n_blocks : int
        Parts of the trajectory; fewer if it has fewer than eight frames each.
    remove_drift : bool
        Displacements relative to the center of mass of all atoms, which thermostats such as
        Langevin's let wander.
    """
    if motion.species_change:
        raise ValueError(
            "atoms must keep their species to be followed, but they change on the way (swap "
            "moves?); analyze a run without swaps"
        )
    if len(motion) < 8:
        raise ValueError(f"a mean-square displacement needs at least 8 frames, got {len(motion)}")
    paths = motion.centered if remove_drift else motion.positions
    if atoms is not None:
        paths = paths[:, atoms]
    if paths.shape[1] == 0:
        raise ValueError("`atoms` must choose at least one atom, got none")
    n_blocks = max(1, min(n_blocks, len(motion) // 8))
    length = len(motion) // n_blocks
    n_lags = length // 2 + 1
    lag: Array = np.arange(n_lags, dtype=np.float64) * motion.interval
    start, end = (0.2 * lag[-1], lag[-1]) if fit is None else fit
    chosen = (lag >= start * (1 - 1e-9)) & (lag <= end * (1 + 1e-9)) & (lag > 0)
    if chosen.sum() < 2:
        raise ValueError(
            f"the fit needs two lags between {start:g} and {end:g} fs, but frames are "
            f"{motion.interval:g} fs apart and the longest lag is {lag[-1]:g} fs"
        )
    msd = mean_square_displacement(paths)[:n_lags]
    parts = [
        mean_square_displacement(paths[len(paths) - (k + 1) * length :][:length])[:n_lags]
        for k in range(n_blocks)
    ]
    slopes = np.array([_slope(lag[chosen], part[chosen]) for part in parts])
    estimate = Estimate(
        _slope(lag[chosen], msd[chosen]), float(standard_error(slopes)) if n_blocks > 1 else np.nan
    )
    still = not (msd[chosen] > 0).all()
    return Diffusion(
        lag=lag,
        msd=msd,
        error=standard_error(np.stack(parts)),
        fit=(float(lag[chosen][0]), float(lag[chosen][-1])),
        coefficient=estimate.scaled(A2_PER_FS_TO_1E9_M2_PER_S / 6.0),
        exponent=np.nan if still else _slope(np.log(lag[chosen]), np.log(msd[chosen])),
    )


def _slope(x: Array, y: Array) -> float:
    d = x - x.mean()
    return float(d @ y / (d @ d))


def finite_size_correction(
    temperature: float, box_length: float, viscosity: float = WATER_VISCOSITY
) -> float:
    r"""What a diffusion coefficient in a periodic cube lacks, 10⁻⁹ m²/s.

    .. math:: D_\infty - D_\mathrm{PBC} = \frac{\xi\, k_B T}{6 \pi \eta L}, \qquad \xi = 2.837297

    (Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004); Dünweg and Kremer, J. Chem. Phys. 99, 6983
    (1993)).

    Parameters
    ----------
    temperature : float
        K.
    box_length : float
        Edge L of the cube, Å.
    viscosity : float
        Shear viscosity η of the model, mPa·s. The default is that of real water at 298.15 K; a
        model whose water is stiffer or more fluid needs its own.
    """
    for name, value in (
        ("temperature", temperature),
        ("box_length", box_length),
        ("viscosity", viscosity),
    ):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}")
    joule = K_B * temperature * scipy.constants.e
    meter, pascal_second = box_length * 1e-10, viscosity * 1e-3
    return float(YEH_HUMMER_XI * joule / (6 * np.pi * pascal_second * meter) * 1e9)


def cube_edge(cells: Array) -> float:
    """Mean edge of cubic cells, Å.

    Raises
    ------
    ValueError
        Unless edges agree within 1 % and are orthogonal within 0.01.
    """
    edges = np.linalg.norm(cells, axis=-1)
    directions = cells / edges[..., None]
    cosines = np.einsum("fac,fbc->fab", directions, directions) - np.eye(3)
    if np.ptp(edges.mean(axis=0)) > 0.01 * edges.mean() or np.abs(cosines).max() > 0.01:
        raise ValueError(
            "the finite-size correction holds for cubic cells, got edges of "
            + ", ".join(f"{x:.3f}" for x in edges.mean(axis=0))
            + f" Å and cosines up to {np.abs(cosines).max():.3f}"
        )
    return float(edges.mean())


def site_displacement(motion: Motion, atoms: NDArray[np.bool_] | None = None) -> Estimate:
    r"""Mean-square displacement from the mean position, Å², of atoms bound to sites.

    .. math:: \langle u^2 \rangle = \overline{|r_i - \bar r_i|^2}

    averaged over atoms and frames, relative to the center of mass; three times the mean square
    along one direction that the Debye-Waller factor holds. The mean position is estimated from the
    same frames; that of correlated frames is uncertain, which makes short runs come out low.
    """
    paths = motion.centered if atoms is None else motion.centered[:, atoms]
    if paths.shape[1] == 0:
        raise ValueError("`atoms` must choose at least one atom, got none")
    return block_mean(((paths - paths.mean(axis=0)) ** 2).sum(axis=2).mean(axis=1))
