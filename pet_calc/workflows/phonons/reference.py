"""Phonons from forces that another program computed, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pet_calc.workflows.phonons.calculation import require_phonopy
from pet_calc.workflows.phonons.config import PhononConfig
from pet_calc.workflows.phonons.force_constants import symmetrize
from pet_calc.workflows.phonons.spectrum import Spectrum, spectrum


def reference_spectrum(
    unitcell: Path, force_sets: Path, supercell: Sequence[int], config: PhononConfig | None = None
) -> Spectrum:
    """Phonons from a ``FORCE_SETS`` file of phonopy, as of a first-principles calculation.

    Parameters
    ----------
    unitcell : Path
        The unit cell in any format that ASE reads.
    force_sets : Path
        Displacements and forces of its supercell, Å and eV/Å.
    supercell : sequence of 3 int
        Multiples of the unit cell.
    config : PhononConfig, optional
        Of which symmetrization and sampling are used.

    Raises
    ------
    ValueError
        If the files do not belong together.
    """
    require_phonopy()
    from ase.io import read
    from phonopy import Phonopy
    from phonopy.file_IO import parse_FORCE_SETS
    from phonopy.structure.cells import guess_primitive_matrix

    from pet_calc.workflows.phonons.cells import to_phonopy

    config = config or PhononConfig()
    structure: Any = read(unitcell)
    cell = to_phonopy(structure)
    phonon = Phonopy(
        cell,
        supercell_matrix=np.diag(supercell),
        primitive_matrix=guess_primitive_matrix(cell, symprec=config.symprec),
        symprec=config.symprec,
    )
    dataset: Any = parse_FORCE_SETS(filename=force_sets)
    if dataset["natom"] != len(phonon.supercell):
        raise ValueError(
            f"{force_sets} is of {dataset['natom']} atoms, but a {list(supercell)} supercell of "
            f"{unitcell} has {len(phonon.supercell)}"
        )
    phonon.dataset = dataset
    phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    symmetrize(phonon, config)
    return spectrum(phonon, config)
