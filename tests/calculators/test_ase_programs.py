"""ASE's own programs run on PETCalculator: relaxation, dynamics, finite differences, files."""

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from calculators.small_potentials import liquid, small_pet

from pet_calc import PETCalculator


@pytest.fixture
def atoms():
    """A small liquid with a float64 calculator."""
    atoms = liquid()
    atoms.calc = PETCalculator(small_pet())
    return atoms


def left_handed():
    atoms = liquid()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 1.02, 0], [0.05, 0, 0.98]])
    return atoms


SLAB = liquid()
SLAB.pbc = (True, True, False)
CLUSTER = liquid()
CLUSTER.pbc = False


@pytest.mark.parametrize(
    "structure",
    [liquid(), liquid(1, length=2.9), left_handed(), SLAB, CLUSTER, Atoms("O")],
    ids=["liquid", "cell below the cutoff", "left-handed", "slab", "cluster", "one atom"],
)
def test_forces_are_the_derivative_of_the_energy(structure):
    atoms = structure.copy()
    atoms.calc = PETCalculator(small_pet())
    some = list(range(min(len(atoms), 3)))
    analytic = atoms.get_forces()[some]
    errors = [
        np.abs(calculate_numerical_forces(atoms, eps=eps, iatoms=some) - analytic).max()
        for eps in (1e-3, 2.5e-4)
    ]
    assert errors[1] < 1e-6
    if len(atoms) > 1:
        # the error is that of central differences, which falls with the square of the step
        assert np.abs(analytic).max() > 1e-3
        assert 10 < errors[0] / errors[1] < 25


@pytest.mark.parametrize("structure", [liquid(), left_handed()], ids=["cubic", "left-handed"])
def test_stress_is_the_derivative_with_respect_to_strain(structure):
    atoms = structure.copy()
    atoms.calc = PETCalculator(small_pet())
    analytic = atoms.get_stress()
    errors = [
        np.abs(calculate_numerical_stress(atoms, eps=eps) - analytic).max()
        for eps in (1e-3, 2.5e-4)
    ]
    assert errors[1] < 1e-7
    assert np.abs(analytic).max() > 1e-3
    assert 10 < errors[0] / errors[1] < 25


def test_finite_differences_need_the_free_energy(atoms):
    forces = calculate_numerical_forces(atoms, eps=1e-3, iatoms=[0], force_consistent=True)
    assert np.abs(forces - atoms.get_forces()[[0]]).max() < 1e-4


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation_lowers_the_energy(atoms, optimizer):
    before = atoms.get_potential_energy()
    # short steps: random weights pull atoms into one another
    optimizer(atoms, logfile=None, maxstep=0.02).run(fmax=1e-8, steps=10)
    assert atoms.get_potential_energy() < before - 0.01


def test_a_molecule_relaxes_to_a_minimum():
    water = ase.build.molecule("H2O")
    water.calc = PETCalculator(small_pet())
    assert BFGS(water, logfile=None).run(fmax=1e-3, steps=200)
    assert np.linalg.norm(water.get_forces(), axis=1).max() < 1e-3


def test_fixed_atoms_stay(atoms):
    atoms.set_constraint(FixAtoms([0, 1]))
    before = atoms.get_positions()
    BFGS(atoms, logfile=None).run(fmax=1e-8, steps=3)
    assert (atoms.positions[:2] == before[:2]).all()
    assert (atoms.positions[2:] != before[2:]).any(axis=1).all()
    # the calculator knows nothing of constraints
    assert np.abs(atoms.calc.results["forces"][:2]).max() > 0.0


def test_cell_relaxation_lowers_the_energy(atoms):
    before, cell = atoms.get_potential_energy(), atoms.cell.copy()
    FIRE(FrechetCellFilter(atoms), logfile=None, maxstep=0.02).run(fmax=1e-8, steps=10)
    assert atoms.get_potential_energy() < before
    assert np.abs(atoms.cell - cell).max() > 1e-4


def test_dynamics_conserves_energy(atoms):
    generator = np.random.default_rng(0)
    momenta = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    atoms.set_momenta(momenta * generator.standard_normal((len(atoms), 3)))
    kinetic = atoms.get_kinetic_energy()

    def spread(timestep, steps):
        walker = atoms.copy()
        walker.calc = PETCalculator(small_pet())
        energies = []
        dynamics = VelocityVerlet(walker, timestep=timestep * units.fs)
        dynamics.attach(lambda: energies.append(walker.get_total_energy()))
        dynamics.run(steps)
        # the energy really flows between its two kinds
        assert abs(walker.get_kinetic_energy() - kinetic) > 1e-3
        return np.ptp(energies)

    long, short = spread(0.5, 20), spread(0.25, 40)
    assert short < 0.05 * kinetic
    # an integrator of second order on a smooth surface
    assert 2.5 < long / short < 6.0


@pytest.mark.parametrize("suffix", ["traj", "xyz"])
def test_results_survive_files(atoms, tmp_path, suffix):
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    ase.io.write(tmp_path / f"frame.{suffix}", atoms)
    read = ase.io.read(tmp_path / f"frame.{suffix}")
    assert read.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(read.get_forces(), forces, atol=1e-7)
    np.testing.assert_allclose(read.get_stress(), stress, atol=1e-7)


def test_a_molecule_can_be_written(tmp_path):
    water = ase.build.molecule("H2O")
    water.calc = PETCalculator(small_pet())
    water.get_forces()
    ase.io.write(tmp_path / "water.traj", water)
    assert ase.io.read(tmp_path / "water.traj").get_forces().shape == (3, 3)


def test_other_calculators_are_left_as_they_are(atoms):
    before = list(LennardJones.implemented_properties)
    atoms.get_forces()
    assert LennardJones.implemented_properties == before
    assert BaseCalculator.implemented_properties == []
