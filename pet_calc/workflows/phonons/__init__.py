"""Phonons by finite displacements and the quasi-harmonic approximation, with phonopy.

>>> from pet_calc.workflows.phonons import PhononConfig, compute_phonons, write_phonons
>>> result = compute_phonons(atoms, PhononConfig(min_length=12.0))
>>> result.spectrum.points[0].frequencies
>>> write_phonons(result, "phonons_out")

``config`` says what is asked, ``cells`` finds primitive cell and supercell, ``relaxation`` and
``forces`` call the calculator, ``force_constants`` and ``spectrum`` hold the physics,
``calculation`` joins them, ``qha`` repeats them at several volumes, ``figures`` and ``files`` write.
"""

from pet_calc.workflows.phonons.calculation import BornCharges, PhononResult, compute_phonons
from pet_calc.workflows.phonons.config import IMAGINARY, PhononConfig, QHAConfig
from pet_calc.workflows.phonons.spectrum import Spectrum, spectrum

__all__ = [
    "IMAGINARY",
    "BornCharges",
    "PhononConfig",
    "PhononResult",
    "QHAConfig",
    "Spectrum",
    "compute_phonons",
    "spectrum",
]
