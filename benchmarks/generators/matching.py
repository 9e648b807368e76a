"""Whether two crystals are the same up to tolerances: pymatgen's StructureMatcher, the field's.

With the settings of crystal structure prediction benchmarks: stol 0.5, ltol 0.3, angle_tol 10°.
"""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import version
from typing import Any

from ase import Atoms

from pet_calc.errors import MissingDependencyError


class Matcher:
    """StructureMatcher with the tolerances of the benchmarks.

    Raises
    ------
    MissingDependencyError
        If pymatgen is not installed.
    """

    def __init__(self, stol: float = 0.5, ltol: float = 0.3, angle_tol: float = 10.0) -> None:
        try:
            module = importlib.import_module("pymatgen.analysis.structure_matcher")
        except ImportError as error:
            raise MissingDependencyError(
                "the match rate needs pymatgen; pip install 'pymatgen>=2026.10'"
            ) from error
        self._matcher = module.StructureMatcher(stol=stol, ltol=ltol, angle_tol=angle_tol)
        self.label = (
            f"pymatgen {version('pymatgen')} stol={stol:g} ltol={ltol:g} angle={angle_tol:g}"
        )

    def rms(self, first: Atoms, second: Atoms) -> float | None:
        """Root mean square distance of the sites over (V/N)^(1/3); None without a match."""
        found = self._matcher.get_rms_dist(_structure(first), _structure(second))
        return None if found is None else float(found[0])


def _structure(atoms: Atoms) -> Any:
    core = importlib.import_module("pymatgen.core")
    with warnings.catch_warnings():
        # electronegativities that pymatgen does not know play no part here
        warnings.simplefilter("ignore")
        return core.Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions())


def smact_valid(atoms: Atoms) -> bool | None:
    """Charge neutrality and Pauling test of SMACT; None for compositions that it cannot judge.

    Raises
    ------
    MissingDependencyError
    """
    try:
        screening = importlib.import_module("smact.screening")
    except ImportError as error:
        raise MissingDependencyError(
            "composition validity needs SMACT; pip install 'smact>=4.0'"
        ) from error
    try:
        return bool(screening.smact_validity(atoms.get_chemical_formula(empirical=True)))
    except (TypeError, KeyError, ValueError):
        # elements without oxidation states in its tables
        return None
