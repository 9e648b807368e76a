"""Crystals of the elements that ASE has no atoms for: bonds, neighbours and volumes as known."""

import numpy as np
import pytest
from ase.build import bulk
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from pet_calc import PETCalculator
from pet_calc.generation.elements import CRYSTALS, elemental_crystal
from pet_calc.generation.references import build_hull, reference_structure
from pet_calc.workflows.relax import RelaxConfig

# atoms, shortest distance in Å, neighbours within 15 % of it (least and most), Å³ per atom
KNOWN = {
    "Cl": (4, 2.02, 1, 1, 28.9),
    "Br": (4, 2.27, 1, 1, 32.6),
    "I": (4, 2.70, 1, 1, 42.6),
    "Ga": (4, 2.48, 7, 7, 19.6),
    "P": (4, 2.22, 3, 3, 19.0),
    "Se": (3, 2.37, 2, 2, 27.3),
    "Te": (3, 2.84, 2, 2, 34.0),
    "S": (32, 2.04, 2, 2, 25.8),
    "B": (12, 1.67, 5, 6, 7.28),
    "Mn": (29, 2.24, 0, 6, 12.2),
    "Pm": (4, 3.60, 12, 12, 33.6),
    "Pa": (1, 3.21, 10, 10, 24.9),
}


@pytest.mark.parametrize("symbol", CRYSTALS)
def test_bonds_and_volume(symbol):
    atoms = elemental_crystal(symbol)
    n_atoms, shortest, least, most, volume = KNOWN[symbol]
    assert len(atoms) == n_atoms
    assert set(atoms.get_chemical_symbols()) == {symbol}
    i, distances = neighbor_list("id", atoms, 4.5)
    assert distances.min() == pytest.approx(shortest, abs=0.01)
    near = np.bincount(i[distances < 1.15 * distances.min()], minlength=n_atoms)
    assert (near.min(), near.max()) == (least, most)
    assert atoms.get_volume() / n_atoms == pytest.approx(volume, rel=0.005)


def test_every_element_but_a_few_has_a_reference():
    missing = []
    for symbol in chemical_symbols[1:95]:
        try:
            atoms = reference_structure(symbol)
        except ValueError:
            missing.append(symbol)
        else:
            assert atoms.pbc.all()
            assert atoms.get_volume() > 0
    assert missing == ["At", "Rn", "Fr", "Ra", "Pu"]


def test_elements_and_compounds_of_a_hull_are_computed_by_one_potential(monkeypatch, tmp_path):
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path))
    calculator = PETCalculator()
    hull, reasons = build_hull(
        [bulk("MgO", "rocksalt", a=4.25)], calculator, RelaxConfig(cell="free", steps=3)
    )
    assert not reasons
    # the potential of magnesium oxide knows no metal
    assert calculator.name.startswith("pet-general")
    assert {p.composition.formula for p in hull.phases} == {"Mg", "O", "MgO"}
