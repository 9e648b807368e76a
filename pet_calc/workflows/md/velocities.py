"""Initial velocities and the degrees of freedom that they share their energy over."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from pet_calc.workflows.md.config import MDConfig


def maxwell_boltzmann(
    masses: NDArray[np.float64],
    temperature: float,
    rng: np.random.Generator,
    *,
    remove_drift: bool = True,
) -> NDArray[np.float64]:
    r"""Momenta drawn at a temperature, by default with the center of mass at rest.

    .. math:: p_{ia} \sim \mathcal{N}(0,\; m_i k_B T)

    Removing the total momentum, :math:`p_i - m_i \sum_j p_j / \sum_j m_j`, projects the Gaussian
    onto the 3 N - 3 remaining degrees of freedom and leaves their distribution exact: no rescaling
    follows, so that the kinetic energy fluctuates as it should.

    Parameters
    ----------
    masses : array, shape (n_atoms,)
        Masses, amu.
    temperature : float
        K.
    rng : numpy.random.Generator
        Source of the noise.
    remove_drift : bool
        Give the center of mass no momentum.

    Returns
    -------
    array, shape (n_atoms, 3)
        Momenta in ASE units, amu Å / (Å sqrt(amu / eV)).
    """
    scale = np.sqrt(masses * units.kB * temperature)
    momenta = rng.standard_normal((len(masses), 3)) * scale[:, None]
    return without_drift(momenta, masses) if remove_drift else momenta


def initial_momenta(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, *, remove_drift: bool
) -> NDArray[np.float64]:
    """Momenta (n_atoms, 3) that a run begins with: drawn, or those that the structure carries."""
    masses = atoms.get_masses()
    if config.initial_velocities == "maxwell-boltzmann":
        return maxwell_boltzmann(masses, config.temperature, rng, remove_drift=remove_drift)
    momenta = atoms.get_momenta()
    return without_drift(momenta, masses) if remove_drift else momenta


def without_drift(momenta: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Momenta (n_atoms, 3) with the center of mass brought to rest."""
    velocity = momenta.sum(axis=0) / masses.sum()
    return np.asarray(momenta - masses[:, None] * velocity)


def degrees_of_freedom(atoms: Atoms, *, drift_removed: bool) -> int:
    """Degrees of freedom over which the kinetic energy is shared.

    3 N, less those that constraints take, less three when the center of mass stays at rest. At
    least one, so that a temperature is defined.
    """
    n_dof = int(atoms.get_number_of_degrees_of_freedom())
    return max(n_dof - 3 if drift_removed else n_dof, 1)
