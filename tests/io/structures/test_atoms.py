"""ase.Atoms -> System -> ase.Atoms."""

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import System
from pet_calc.io.structures.atoms import atoms_from_system, system_from_atoms

STRUCTURES = {
    "molecule": ase.build.molecule("CH3OH"),
    "crystal": ase.build.bulk("NaCl", "rocksalt", a=5.6),
    "left-handed": Atoms("Cu", cell=[[0, 2, 2], [2, 0, 2], [2, 2, 0.5]], pbc=True),
    "slab with a free zero vector": Atoms(
        "Cu2", [[0, 0, 0], [0, 0, 2]], cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=(1, 1, 0)
    ),
    "wire": Atoms("C", [[0, 0, 1e4]], cell=[[9, 0, 0], [0, 9, 0], [1, 0, 2]], pbc=(0, 0, 1)),
    "one atom": Atoms("X", positions=[[1, 2, 3]]),
}


@pytest.mark.parametrize("atoms", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_round_trip_keeps_every_value(atoms):
    system = system_from_atoms(atoms)
    assert system.positions.dtype == system.cell.dtype == torch.float64
    (back,) = atoms_from_system(system)
    assert (back.numbers == atoms.numbers).all()
    assert (back.positions == atoms.positions).all()
    assert (back.cell.array == atoms.cell.array).all()
    assert (back.pbc == atoms.pbc).all()


def test_a_batch_gives_its_structures():
    batch = [STRUCTURES["molecule"], STRUCTURES["crystal"]]
    back = atoms_from_system(System.concatenate([system_from_atoms(a) for a in batch]))
    assert [a.get_chemical_formula() for a in back] == ["CH4O", "ClNa"]
    assert (back[1].positions == batch[1].positions).all()


def test_system_does_not_follow_the_atoms():
    atoms = ase.build.bulk("Cu", cubic=True)
    system = system_from_atoms(atoms)
    positions, cell = system.positions.clone(), system.cell.clone()
    atoms.positions += 1.0
    atoms.cell *= 2.0
    atoms.numbers[:] = 79
    assert torch.equal(system.positions, positions)
    assert torch.equal(system.cell, cell)
    assert system.numbers.tolist() == [29] * 4


def test_zero_atoms_are_refused():
    with pytest.raises(InvalidStructureError, match="at least one atom"):
        system_from_atoms(Atoms())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(value):
    atoms = ase.build.molecule("H2O")
    atoms.positions[1, 2] = value
    with pytest.raises(InvalidStructureError, match="atom 1 is at"):
        system_from_atoms(atoms)


@pytest.mark.parametrize("pbc", [True, (True, False, False)])
def test_periodicity_without_a_cell_is_refused(pbc):
    with pytest.raises(InvalidStructureError, match="zero vector; set the cell or turn"):
        system_from_atoms(Atoms("H", pbc=pbc))


def test_a_flat_cell_is_refused():
    cell = [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    with pytest.raises(InvalidStructureError, match="linearly dependent"):
        system_from_atoms(Atoms("H", cell=cell, pbc=True))


def test_a_cell_that_is_not_finite_is_refused():
    with pytest.raises(InvalidStructureError, match="cell must be finite"):
        system_from_atoms(Atoms("H", cell=[[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], pbc=True))
