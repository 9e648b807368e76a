"""Units of pet_calc, and the constants that lead from them to others.

Energies are in eV, lengths in Å, masses in unified atomic mass units, temperatures in K. The unit
of time that follows from these is Å·(amu/eV)^½, about 10.18 fs; it is the one that ASE integrates
in. Stress is in eV/Å³ with tension positive.

Every constant converts by multiplication: ``pressure_in_GPa = stress * EV_PER_A3_TO_GPA``,
``timestep = 0.5 * FS``. Values are CODATA as shipped with SciPy. (ASE takes CODATA 2014 by default,
which differs by less than one part in a million.)
"""

import math

from scipy import constants as _codata

__all__ = [
    "AMU_PER_A3_TO_G_PER_CM3",
    "BOHR",
    "EV_PER_A3_TO_GPA",
    "EV_TO_KJ_PER_MOL",
    "FS",
    "GPA",
    "HARTREE",
    "INTERNAL_TIME_TO_FS",
    "K_B",
    "NS",
    "PS",
    "THZ_TO_INVERSE_CM",
    "THZ_TO_MEV",
]

K_B: float = _codata.k / _codata.e
"""Boltzmann's constant in eV/K."""

EV_PER_A3_TO_GPA: float = _codata.e * 1e30 / 1e9
"""1 eV/Å³ in GPa, about 160.22."""

GPA: float = 1.0 / EV_PER_A3_TO_GPA
"""1 GPa in eV/Å³."""

INTERNAL_TIME_TO_FS: float = 1e-10 * math.sqrt(_codata.atomic_mass / _codata.e) * 1e15
"""The unit of time Å·(amu/eV)^½ in fs, about 10.18."""

FS: float = 1.0 / INTERNAL_TIME_TO_FS
"""1 fs in Å·(amu/eV)^½."""

PS: float = 1e3 * FS
"""1 ps in Å·(amu/eV)^½."""

NS: float = 1e6 * FS
"""1 ns in Å·(amu/eV)^½."""

HARTREE: float = _codata.physical_constants["Hartree energy in eV"][0]
"""1 hartree in eV."""

BOHR: float = _codata.physical_constants["Bohr radius"][0] * 1e10
"""1 bohr in Å."""

AMU_PER_A3_TO_G_PER_CM3: float = _codata.atomic_mass * 1e3 * 1e24
"""1 amu/Å³ in g/cm³, about 1.66."""

EV_TO_KJ_PER_MOL: float = _codata.e * _codata.N_A / 1e3
"""1 eV per particle in kJ/mol, about 96.49."""

THZ_TO_MEV: float = _codata.h * 1e12 / _codata.e * 1e3
"""h·(1 THz) in meV, about 4.14."""

THZ_TO_INVERSE_CM: float = 1e12 / (_codata.c * 100.0)
"""1 THz as a wavenumber in cm⁻¹, about 33.36."""
