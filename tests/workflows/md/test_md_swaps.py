"""Swap moves against exact enumeration, and what they carry with them."""

import itertools

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from calculators.small_potentials import small_pet
from scipy.stats import chi2

from pet_calc import PETCalculator
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.md.swaps import SwapMoves

TEMPERATURE = 600.0
KT = units.kB * TEMPERATURE


class Lattice(Calculator):
    """Fields on the sites and couplings between them, all different: 20 energies for 3 of 6."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    rng = np.random.default_rng(8)
    fields = rng.normal(scale=KT, size=6)
    couplings = np.triu(rng.normal(scale=0.5 * KT, size=(6, 6)), 1)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.of(self.atoms.numbers), "forces": np.zeros((6, 3))}

    def of(self, numbers):
        spin = np.where(np.asarray(numbers) == 79, 1.0, -1.0)
        return float(self.fields @ spin + spin @ self.couplings @ spin)


def visits(kT, rounds=1200):
    """How often each configuration was seen, and the Boltzmann probability of each."""
    atoms = Atoms("Au3Cu3", positions=4.0 * np.arange(18.0).reshape(6, 3))
    atoms.calc = Lattice()
    moves = SwapMoves(atoms, np.random.default_rng(1))
    states = {
        tuple(79 if k in chosen else 29 for k in range(6)): 0
        for chosen in itertools.combinations(range(6), 3)
    }
    for _ in range(rounds):
        moves.run(8, kT)  # enough for the next sample to be nearly independent
        states[tuple(atoms.numbers.tolist())] += 1
    energies = np.array([atoms.calc.of(s) for s in states])
    weights = np.exp(-(energies - energies.min()) / KT)
    return np.array(list(states.values())), weights / weights.sum(), moves


def significance(counts, probabilities):
    """Probability of a deviation as large as this, by Pearson's chi squared."""
    expected = counts.sum() * probabilities
    common = expected > 5
    statistic = ((counts - expected)[common] ** 2 / expected[common]).sum()
    return chi2.sf(statistic, common.sum() - 1)


@pytest.mark.physics
def test_configurations_are_visited_by_their_boltzmann_weight():
    counts, probabilities, moves = visits(KT)
    assert (counts > 0).sum() > 15
    assert significance(counts, probabilities) > 0.003  # 3 sigma
    assert 0.1 < moves.acceptance < 0.9


@pytest.mark.physics
def test_a_wrong_temperature_is_rejected():
    counts, probabilities, _ = visits(1.4 * KT)
    assert significance(counts, probabilities) < 1e-6


def alloy():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[::3] = "Au"
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    rng = np.random.default_rng(0)
    atoms.set_momenta(rng.normal(size=(8, 3)))
    atoms.set_initial_magnetic_moments(np.arange(8.0))
    return atoms


def test_atoms_take_mass_momentum_and_moment_along():
    atoms = alloy()
    atoms.set_masses(atoms.get_masses() + 1.0)
    atoms.calc = EMT()
    before = atoms.copy()
    moves = SwapMoves(atoms, np.random.default_rng(3))
    moves.run(20, 1.0)
    assert moves.accepted > 0
    assert atoms.get_kinetic_energy() == pytest.approx(before.get_kinetic_energy(), rel=1e-12)
    np.testing.assert_allclose(atoms.get_momenta().sum(0), before.get_momenta().sum(0), atol=1e-12)
    assert (atoms.positions == before.positions).all()
    # the moments are all different: they tell where each atom went
    went = atoms.get_initial_magnetic_moments().astype(int)
    assert (went != np.arange(8)).any()
    for name in ("numbers", "masses", "momenta"):
        assert (atoms.arrays[name] == before.arrays[name][went]).all()


def test_heat_is_the_change_of_energy():
    atoms = alloy()
    atoms.calc = EMT()
    start = atoms.get_potential_energy()
    moves = SwapMoves(atoms, np.random.default_rng(3))
    moves.run(30, 0.3)
    assert 0 < moves.accepted < moves.attempts == 30
    assert atoms.get_potential_energy() - start == pytest.approx(moves.heat, abs=1e-9)


def test_neighbor_list_of_the_potential_notices_a_swap():
    atoms = alloy()
    atoms.calc = PETCalculator(small_pet((29, 79)))
    atoms.get_potential_energy()
    moves = SwapMoves(atoms, np.random.default_rng(3))
    for _ in range(5):
        moves.run(3, 10.0)
        fresh = atoms.copy()
        fresh.calc = PETCalculator(small_pet((29, 79)))
        assert atoms.get_potential_energy() == fresh.get_potential_energy()
        assert (atoms.get_forces() == fresh.get_forces()).all()


def test_trajectory_shows_the_species_of_each_frame(tmp_path):
    atoms = alloy()
    atoms.calc = EMT()
    config = MDConfig(timestep=2.0, temperature=2000.0, steps=40, frame_interval=2, swap_interval=2)
    result = run_md(atoms, config, tmp_path)
    frames = read(result.trajectory_file, index=":")
    assert len({tuple(frame.numbers) for frame in frames}) > 2
    assert (frames[-1].numbers == result.atoms.numbers).all()
    assert len({tuple(sorted(frame.numbers)) for frame in frames}) == 1
    # a swap is no loss of energy
    assert np.ptp(result.log.conserved) < 0.03 * np.ptp(result.log.total)


def test_swaps_need_two_species_and_free_atoms():
    pure = bulk("Cu", cubic=True)
    with pytest.raises(ValueError, match="Cu4 has one"):
        SwapMoves(pure, np.random.default_rng())
    fixed = alloy()
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="need free atoms"):
        SwapMoves(fixed, np.random.default_rng())
