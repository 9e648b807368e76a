from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.units import GPa

from pet_calc.errors import InvalidStructureError
from pet_calc.workflows.guards import GuardConfig
from pet_calc.workflows.relax import RelaxConfig, relax
from pet_calc.workflows.relax.symmetry import space_group


def rattled(symbol="Cu", seed=0, scale=0.05):
    atoms = bulk(symbol, cubic=True)
    atoms.rattle(scale, seed=seed)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    ("optimizer", "cell"),
    [
        ("fire", "fixed"),
        ("lbfgs", "free"),
        ("bfgs", "free"),
        ("lbfgs", "isotropic"),
        ("bfgs", "shape"),
    ],
)
def test_relaxed_copper(optimizer, cell):
    atoms = rattled()
    before = atoms.positions.copy()
    config = RelaxConfig(optimizer=optimizer, cell=cell, fmax=1e-3, steps=300)
    result = relax(atoms, config)
    assert result.status == "converged"
    assert result.reason == ""
    assert result.fmax < 1e-3
    assert (atoms.positions == before).all()
    check = result.atoms.copy()
    check.calc = EMT()
    assert result.energy == pytest.approx(check.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(result.stress, check.get_stress(), atol=1e-12)
    if cell in ("free", "isotropic"):
        # lattice constant of EMT copper at the minimum of its energy, by a scan of the volume
        assert result.atoms.get_volume() == pytest.approx(4 * 11.5646, rel=1e-3)
    else:
        assert result.volume_change == pytest.approx(0.0, abs=1e-9)
    if cell == "isotropic":
        # (the stress that remains is that of the shape)
        assert result.atoms.cell.angles() == pytest.approx([90, 90, 90], abs=1e-6)


def test_pressure_compresses():
    free = relax(rattled(), RelaxConfig("bfgs", cell="free", fmax=1e-4))
    pressed = relax(rattled(), RelaxConfig("bfgs", cell="free", fmax=1e-4, pressure=10.0))
    assert pressed.status == "converged"
    assert pressed.atoms.get_volume() < 0.96 * free.atoms.get_volume()
    assert -pressed.stress[:3].mean() / GPa == pytest.approx(10.0, abs=0.02)


def test_symmetry_is_kept_or_reported():
    atoms = bulk("Cu", "hcp", a=2.6, c=4.4)
    atoms.calc = EMT()
    atoms.rattle(1e-3, seed=1)
    assert space_group(atoms, 1e-5) in ("P1 (1)", "P-1 (2)")
    assert space_group(atoms, 1e-2) == "P6_3/mmc (194)"
    config = RelaxConfig("bfgs", cell="free", fmax=1e-3)
    assert space_group(relax(atoms, config).atoms, 1e-5) != "P6_3/mmc (194)"
    kept = relax(atoms, replace(config, symmetrize=True))
    assert kept.converged
    assert kept.atoms.constraints == []
    assert space_group(kept.atoms, 1e-5) == "P6_3/mmc (194)"


def test_a_molecule_has_no_space_group_to_fix():
    atoms = molecule("N2")
    atoms.calc = EMT()
    assert space_group(atoms, 1e-2) == ""
    with pytest.raises(InvalidStructureError, match="three dimensions"):
        relax(atoms, RelaxConfig(symmetrize=True))
    with pytest.raises(InvalidStructureError, match="three dimensions"):
        relax(atoms, RelaxConfig(cell="free"))
    result = relax(atoms)
    assert result.converged
    assert result.stress is None
    assert np.isnan(result.volume_change)


def test_constraints_hold_and_forces_are_stored_without_them():
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.set_constraint(FixAtoms([0, 1]))
    slab.calc = EMT()
    slab.positions[0, 2] -= 0.2
    result = relax(slab)
    assert result.converged
    assert (result.atoms.positions[0] == slab.positions[0]).all()
    assert np.abs(result.atoms.get_forces(apply_constraint=False)[0]).max() > 0.1


def test_caps():
    capped = relax(rattled(), RelaxConfig(fmax=1e-6, steps=3))
    assert (capped.status, capped.steps) == ("steps", 3)
    timed = relax(rattled(), RelaxConfig(fmax=1e-6, seconds=1e-9))
    assert (timed.status, timed.steps) == ("time", 0)
    capped = relax(rattled(), RelaxConfig(fmax=1e-6, total_seconds=1e-9))
    assert capped.status == "time"


class Attractive(EMT):
    """Pulls the first two atoms together without end."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        self.atoms = atoms.copy()
        d = atoms.positions[1] - atoms.positions[0]
        r = np.linalg.norm(d)
        forces = np.zeros((len(atoms), 3))
        forces[0], forces[1] = d / r, -d / r
        self.results = {"energy": r, "forces": forces}


class Breaks(Attractive):
    """The second evaluation gives NaN."""

    calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls > 1:
            self.results["forces"][1] = np.nan


def test_guard_stops_with_the_last_good_geometry():
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [2.5, 0, 0], [0, 9, 0]])
    atoms.calc = Attractive()
    result = relax(atoms)
    assert result.status == "stopped"
    assert "atom 0 (Cu) and atom 1 (Cu) nearly touch" in result.reason
    limit = 0.6 * 2 * 1.32
    assert result.atoms.get_distance(0, 1) > limit
    # the guard is what stopped it: with a lower limit it goes on
    closer = relax(atoms, RelaxConfig(guards=GuardConfig(contact=0.3)))
    assert closer.atoms.get_distance(0, 1) < limit
    atoms.calc = Breaks()
    broken = relax(atoms)
    assert broken.status == "stopped"
    assert "force of atom 1 (Cu) is not a finite number" in broken.reason
    assert np.isfinite(broken.atoms.positions).all()


def test_a_cell_that_falls_apart_is_stopped():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    result = relax(atoms, RelaxConfig(cell="free", pressure=-60.0, volume_factor=1.5))
    assert result.status == "stopped"
    assert "Å³" in result.reason
    assert result.volume_change < 0.5


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "at least one atom"),
        (Atoms("Cu", [[np.nan, 0, 0]]), "must be finite"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 0.1]]), "nearly touch"),
        (Atoms("Cu", pbc=True), "lattice vector"),
    ],
)
def test_bad_structures(atoms, message):
    atoms.calc = EMT()
    with pytest.raises(InvalidStructureError, match=message):
        relax(atoms)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "cg"},
        {"cell": "cubic"},
        {"fmax": 0.0},
        {"fmax": np.nan},
        {"steps": -1},
        {"pressure": 1.0},
        {"cell": "shape", "pressure": 1.0},
        {"seconds": -1.0},
        {"volume_factor": 1.0},
    ],
    ids=str,
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"`|pressure"):
        RelaxConfig(**wrong)
