"""Density, lattice constant, and response functions from fluctuations."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.units import AMU_PER_A3_TO_G_PER_CM3, GPA, K_B
from pet_calc.workflows.statistics import Estimate, block_mean, block_variance

Array = NDArray[np.float64]

#: Atoms in the conventional cubic cell.
CUBIC_CELLS = {"sc": 1, "bcc": 2, "fcc": 4, "diamond": 8}


def density(atoms: Atoms) -> float:
    """Mass per volume of a structure that is periodic in three directions, g/cm³."""
    if not atoms.pbc.all():
        raise ValueError(f"a density needs three periodic directions, got pbc={atoms.pbc.tolist()}")
    return float(atoms.get_masses().sum() / abs(atoms.cell.volume) * AMU_PER_A3_TO_G_PER_CM3)


def cubic_lattice_constant(volume: float | Array, n_atoms: int, crystal: str) -> float | Array:
    r"""Edge of the conventional cubic cell from the volume per atom.

    .. math:: a = (Z V / N)^{1/3}

    Parameters
    ----------
    volume : float or array
        Å³.
    n_atoms : int
        Atoms in that volume.
    crystal : str
        ``sc``, ``bcc``, ``fcc`` or ``diamond``, with Z = 1, 2, 4, 8 atoms.
    """
    if crystal not in CUBIC_CELLS:
        raise ValueError(f"`crystal` must be one of {', '.join(CUBIC_CELLS)}, got {crystal!r}")
    return (CUBIC_CELLS[crystal] * volume / n_atoms) ** (1.0 / 3.0)


def heat_capacity(
    potential: Array,
    temperature: float,
    n_atoms: int,
    *,
    volumes: Array | None = None,
    pressure: float = 0.0,
) -> Estimate:
    r"""Classical heat capacity per atom from the fluctuations of the energy, in units of k_B.

    .. math:: \frac{C_V}{N k_B} = \frac{\mathrm{Var}(U)}{N (k_B T)^2} + \frac32, \qquad
       \frac{C_p}{N k_B} = \frac{\mathrm{Var}(U + p V)}{N (k_B T)^2} + \frac32

    (Allen and Tildesley, Computer Simulation of Liquids, section 2.5); the kinetic part, 3/2, is
    exact and not sampled. Valid for runs that sample the canonical or isothermal-isobaric ensemble,
    not for constant energy or a weak-coupling thermostat. Nuclei are classical: far below the
    temperatures of the vibrations, as for the stretching of O-H at 300 K, the value is too high
    (a harmonic solid has 3 at any temperature).

    Parameters
    ----------
    potential : array, shape (n_samples,)
        Potential energy of the system, eV.
    temperature : float
        K.
    n_atoms : int
    volumes : array, shape (n_samples,), optional
        Å³; gives C_p.
    pressure : float
        GPa, for C_p.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature} K")
    energy = potential if volumes is None else potential + pressure * GPA * volumes
    variance = block_variance(energy).scaled(1.0 / (n_atoms * (K_B * temperature) ** 2))
    return Estimate(variance.value + 1.5, variance.error)


def thermal_expansion(
    potential: Array, volumes: Array, temperature: float, *, pressure: float = 0.0
) -> Estimate:
    r"""Volumetric thermal expansion at constant pressure, 1/K, from fluctuations.

    .. math:: \alpha_V = \frac{\mathrm{Cov}(V, U + p V)}{k_B T^2 \langle V \rangle}

    (Allen and Tildesley, section 2.5); a third of it is the linear coefficient of a cubic crystal.

    Parameters
    ----------
    potential : array, shape (n_samples,)
        eV.
    volumes : array, shape (n_samples,)
        Å³.
    temperature : float
        K.
    pressure : float
        GPa.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature} K")
    enthalpy = potential + pressure * GPA * volumes
    product = block_mean((volumes - volumes.mean()) * (enthalpy - enthalpy.mean()))
    return product.scaled(1.0 / (K_B * temperature**2 * volumes.mean()))


def kinetic_temperature(frames: list[Atoms]) -> Estimate | None:
    r"""Mean temperature of the frames, K; None unless all have momenta.

    .. math:: T = 2 K / (f k_B)

    with f = 3N, or 3N - 3 where the total momentum is zero.
    """
    if not all(a.has("momenta") and a.arrays["momenta"].any() for a in frames):
        return None
    n_atoms = len(frames[0])
    drift = max(float(np.abs(a.get_momenta().sum(axis=0)).max()) for a in frames)
    typical = float(np.sqrt(np.mean([(a.get_momenta() ** 2).sum() for a in frames])))
    fixed = 3 if n_atoms > 1 and drift < 1e-4 * typical else 0
    kinetic = np.array([a.get_kinetic_energy() for a in frames])
    return block_mean(2.0 * kinetic / ((3 * n_atoms - fixed) * K_B))
