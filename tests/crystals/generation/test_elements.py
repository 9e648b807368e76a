"""Crystals of the elements that ASE has no atoms for: bonds, neighbors and volumes as known."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from pet_calc import PETCalculator
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.elements import CRYSTALS, elemental_crystal
from pet_calc.crystals.generation.hull import Hull, Phase
from pet_calc.crystals.generation.references import (
    build_hull,
    cache_path,
    elemental_hull,
    reference_structure,
    takes_the_zero,
)
from pet_calc.workflows.relax import RelaxConfig

# atoms, shortest distance in Å, neighbors within 15 % of it (least and most), Å³ per atom
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
    energies = {p.composition.formula: p.energy for p in hull.phases}
    assert set(energies) == {"Mg", "O", "MgO"}
    # its energies count from the elements, and of molecules it knows nothing
    assert energies["O"] == 0.0
    assert energies["Mg"] != 0.0
    # a potential that says nothing of its zero is asked about the molecule
    alone = PETCalculator(model=shutil.copytree(calculator.potential.folder, tmp_path / "copy"))
    found, _ = elemental_hull(["O"], alone, RelaxConfig(steps=0))
    molecule = reference_structure("O")
    molecule.calc = alone
    per_atom = molecule.get_potential_energy() / len(molecule)
    assert found.phases[0].energy == pytest.approx(per_atom, abs=1e-6)
    assert per_atom != 0.0
    # an earlier reference in the cache does not stand beside the zero
    elemental_hull(["Mg"], calculator, RelaxConfig(steps=0))
    path = cache_path(calculator)
    old = Hull.load(path)
    old.with_phases([Phase(Composition.of("O"), -0.5, "old")]).save(path)
    again, _ = elemental_hull(["O"], calculator)
    assert [p.energy for p in again.phases if p.composition.elements == ("O",)] == [0.0]


def test_zero_of_the_energies():
    class Stated:
        def __init__(self, **values):
            self.potential = SimpleNamespace(**values)

    formation = Stated(formation_energies=True, crystals_only=True)
    taken = {s for s in chemical_symbols[1:95] if takes_the_zero(s, formation)}
    assert taken == {"H", "He", "N", "O", "F", "At", "Rn", "Fr", "Ra", "Pu"}
    for other in (
        Stated(formation_energies=True, crystals_only=False),
        Stated(formation_energies=False, crystals_only=True),
        object(),
    ):
        assert not any(takes_the_zero(s, other) for s in taken)
