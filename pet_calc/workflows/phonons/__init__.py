"""Phonons by finite displacements and the quasi-harmonic approximation, with phonopy.

>>> from pet_calc.workflows.phonons import PhononConfig, phonons, write_phonons
>>> result = phonons(atoms, PhononConfig(min_length=12.0))
>>> result.spectrum.points[0].frequencies
>>> write_phonons(result, "phonons_out")

``cells`` finds primitive cell and supercell, ``relaxation`` and
``forces`` call the calculator, ``force_constants`` and ``spectrum`` hold the physics,
``calculation`` joins them, ``qha`` repeats them at several volumes, ``figures`` and ``files`` show
them.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.phonons.calculation import BornCharges, PhononResult, phonons
    from pet_calc.workflows.phonons.config import PhononConfig, QHAConfig
    from pet_calc.workflows.phonons.figures import phonon_figure, qha_figure
    from pet_calc.workflows.phonons.files import (
        PHONON_FILES,
        QHA_FILES,
        write_phonons,
        write_qha,
    )
    from pet_calc.workflows.phonons.qha import QHAResult, quasi_harmonic
    from pet_calc.workflows.phonons.reference import reference_spectrum
    from pet_calc.workflows.phonons.spectrum import Spectrum

__all__ = [
    "PHONON_FILES",
    "QHA_FILES",
    "BornCharges",
    "PhononConfig",
    "PhononResult",
    "QHAConfig",
    "QHAResult",
    "Spectrum",
    "phonon_figure",
    "phonons",
    "qha_figure",
    "quasi_harmonic",
    "reference_spectrum",
    "write_phonons",
    "write_qha",
]

__getattr__ = lazy_names(
    __name__, "config", "spectrum", "calculation", "figures", "files", "qha", "reference"
)
