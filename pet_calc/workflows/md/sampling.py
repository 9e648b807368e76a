r"""Does a simulation sample the ensemble that it claims? Tests that need no reference simulation.

The kinetic energy is known: :math:`K \sim \Gamma(n/2, k_B T)` for n degrees of freedom. Of the rest
only a ratio is known, between two simulations of the same system (Shirts, J. Chem. Theory Comput.
9, 909 (2013); Merz and Shirts, PLoS ONE 13, e0202764 (2018)):

.. math::

    \ln\frac{P_2(U)}{P_1(U)} &= a - (\beta_2 - \beta_1)\,U
    && \text{two temperatures, constant volume} \\
    \ln\frac{P_2(H)}{P_1(H)} &= a - (\beta_2 - \beta_1)\,H
    && \text{two temperatures, constant pressure, } H = U + PV \\
    \ln\frac{P_2(V)}{P_1(V)} &= a - \beta\,(P_2 - P_1)\,V
    && \text{two pressures}

The slope is fitted by maximum likelihood and compared with what it must be. A thermostat that gives
the right mean with the wrong fluctuations fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import units
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SamplingCheck:
    """A measured value beside the exact one.

    Attributes
    ----------
    quantity : str
        What was measured.
    value, error : float
        Measured value and its standard error, relative to the exact value.
    """

    quantity: str
    value: float
    error: float

    @property
    def sigmas(self) -> float:
        """Distance from the exact value in standard errors."""
        return abs(self.value - 1.0) / self.error

    def __str__(self) -> str:
        return f"{self.quantity}: {self.value:.4f} ± {self.error:.4f} ({self.sigmas:.1f} σ)"


def check_kinetic(kinetic: Array, n_dof: int, temperature: float) -> list[SamplingCheck]:
    r"""Mean and standard deviation of the kinetic energy against the canonical ones.

    .. math:: \langle K\rangle = \tfrac{n}{2} k_B T, \qquad \sigma_K = \sqrt{n/2}\; k_B T

    Parameters
    ----------
    kinetic : array, shape (n_samples,)
        eV.
    n_dof : int
        n.
    temperature : float
        K.
    """
    kT = units.kB * temperature
    return [
        _jackknife("mean of K", [kinetic], lambda k: k.mean() / (0.5 * n_dof * kT)),
        _jackknife("deviation of K", [kinetic], lambda k: k.std() / (np.sqrt(0.5 * n_dof) * kT)),
    ]


def check_two_temperatures(
    energies: tuple[Array, Array], temperatures: tuple[float, float]
) -> SamplingCheck:
    """Slope of the log ratio of two distributions of the energy (the enthalpy), see above.

    Parameters
    ----------
    energies : two arrays, shape (n_samples,)
        Potential (or total) energies at constant volume, or enthalpies at constant pressure, eV.
    temperatures : two floats
        K.
    """
    first, second = (1.0 / (units.kB * t) for t in temperatures)
    return _slope("slope over two temperatures", energies, first - second)


def check_two_pressures(
    volumes: tuple[Array, Array], pressures: tuple[float, float], temperature: float
) -> SamplingCheck:
    """Slope of the log ratio of two distributions of the volume, see above.

    Parameters
    ----------
    volumes : two arrays, shape (n_samples,)
        Å³.
    pressures : two floats
        eV/Å³.
    temperature : float
        K.
    """
    change = (pressures[0] - pressures[1]) / (units.kB * temperature)
    return _slope("slope over two pressures", volumes, change)


def _slope(quantity: str, series: tuple[Array, Array], exact: float) -> SamplingCheck:
    if exact == 0.0:
        raise ValueError("the two simulations must differ in the parameter that is compared")
    return _jackknife(quantity, series, lambda x, y: log_ratio_slope(x, y) / exact)


def log_ratio_slope(x: Array, y: Array) -> float:
    """Slope b of ln(P_y / P_x) = a + b z by maximum likelihood.

    Whether a sample belongs to `y` is a logistic regression on its value, which uses all samples
    and no histogram (Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008), with two states).
    """
    values = np.concatenate([x, y])
    center, width = values.mean(), values.std()
    z = np.stack([np.ones(len(values)), (values - center) / width], axis=1)
    label = np.concatenate([np.zeros(len(x)), np.ones(len(y))])
    parameters = np.zeros(2)
    for _ in range(100):
        probability = expit(z @ parameters)
        weight = probability * (1.0 - probability)
        step = np.linalg.solve((z * weight[:, None]).T @ z, z.T @ (label - probability))
        parameters += step
        if np.abs(step).max() < 1e-10:
            return float(parameters[1] / width)
    raise ValueError(
        "the two distributions do not overlap, so that their ratio has no slope; simulate at "
        "closer temperatures or pressures"
    )


def _jackknife(
    quantity: str, series: Sequence[Array], estimate: Callable[..., float], n_blocks: int = 20
) -> SamplingCheck:
    """An estimate and its error from leaving out blocks, each longer than the correlations."""
    if any(len(s) < 5 * n_blocks for s in series):
        raise ValueError(f"at least {5 * n_blocks} samples are needed, got {min(map(len, series))}")
    left_out = []
    for k, values in enumerate(series):
        edges = np.linspace(0, len(values), n_blocks + 1).astype(int)
        estimates = []
        for a, b in itertools.pairwise(edges):
            parts = list(series)
            parts[k] = np.delete(values, slice(a, b))
            estimates.append(float(estimate(*parts)))
        left_out.append((n_blocks - 1) * np.var(estimates))
    return SamplingCheck(quantity, float(estimate(*series)), float(np.sqrt(sum(left_out))))
