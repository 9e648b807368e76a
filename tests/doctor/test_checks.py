"""Each check passes a sound calculator and catches the fault that it is made for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from calculators.small_potentials import liquid, rare_pet, small_pet
from doctor import broken

from pet_calc import PETCalculator
from pet_calc.doctor import Verdict, coverage, performance
from pet_calc.doctor.consistency import batch_error, history_error, precision_error, smoothness
from pet_calc.doctor.derivatives import force_error, ladder, slope_of, stress_error
from pet_calc.doctor.dynamics import energy_drift
from pet_calc.doctor.evaluation import evaluate
from pet_calc.doctor.symmetry import (
    inversion_error,
    permutation_error,
    rotation_error,
    translation_error,
    wrapping_error,
)

PASS, WARN, FAIL, SKIP = Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.SKIP


def rng():
    return np.random.default_rng(1)


def crystal():
    return bulk("Cu", cubic=True) * (2, 2, 1)


def cluster():
    return Atoms(Octahedron("Cu", 3, 0))


CHECKS = {
    force_error: (
        crystal,
        [broken.ScaledForces, broken.OneWrongForce],
    ),
    stress_error: (
        crystal,
        [broken.StressOfOppositeSign, broken.StressInGPa, broken.ShearsSwapped],
    ),
    smoothness: (crystal, [broken.JumpsAtCutoff]),
    history_error: (
        crystal,
        [broken.Stale, broken.IgnoresTheCell, broken.HandsOutItsBuffer, broken.Remembers],
    ),
    rotation_error: (cluster, [broken.Oriented]),
    inversion_error: (cluster, [broken.Handed]),
    permutation_error: (cluster, [broken.FirstAtomIsSpecial]),
    translation_error: (cluster, [broken.KnowsTheOrigin]),
    wrapping_error: (crystal, [broken.ForgetsImages, broken.KnowsTheOrigin]),
    energy_drift: (cluster, [broken.Swirls]),
}
OPTIONS = {energy_drift: {"picoseconds": 0.4, "seconds": 60.0}}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_sound_calculator_passes(check):
    structure, _ = CHECKS[check]
    finding = check(structure(), EMT(), rng=rng(), **OPTIONS.get(check, {}))
    assert finding.verdict is PASS, finding


@pytest.mark.parametrize(
    ("check", "fault"),
    [(check, fault) for check, (_, faults) in CHECKS.items() for fault in faults],
    ids=lambda x: x.__name__,
)
def test_a_fault_is_caught(check, fault):
    structure, _ = CHECKS[check]
    finding = check(structure(), fault(), rng=rng(), **OPTIONS.get(check, {}))
    assert finding.verdict is FAIL, finding


def test_a_fault_of_one_kind_is_not_taken_for_another():
    assert inversion_error(cluster(), broken.Oriented(), rng=rng()).verdict is PASS
    assert rotation_error(cluster(), broken.Handed(), rng=rng()).verdict is PASS
    assert force_error(cluster(), broken.Oriented(), rng=rng()).verdict is PASS
    assert translation_error(cluster(), broken.FirstAtomIsSpecial(), rng=rng()).verdict is PASS
    assert permutation_error(cluster(), broken.KnowsTheOrigin(), rng=rng()).verdict is PASS
    assert force_error(crystal(), broken.StressInGPa(), rng=rng()).verdict is PASS


def test_the_charge_belongs_to_the_structure_that_is_examined():
    charged = liquid(1)
    charged.info |= {"charge": 1, "spin_multiplicity": 2}
    calculator = PETCalculator(rare_pet(system_conditioning=True))
    found, neutral = evaluate(calculator, charged), evaluate(calculator, liquid(1))
    assert found.energy == calculator.get_potential_energy(charged)
    assert abs(found.energy - neutral.energy) > 1e-6


def test_a_relaxed_structure_hides_nothing():
    """Without forces and stress there is nothing to be wrong about, so that it is displaced."""
    atoms = bulk("Cu", a=3.59, cubic=True)
    assert force_error(atoms, broken.ScaledForces(), rng=rng()).verdict is not PASS
    assert stress_error(atoms, broken.StressOfOppositeSign(), rng=rng()).verdict is FAIL


def test_a_plain_pet_is_exact_but_for_rotations():
    atoms, calculator = liquid(), PETCalculator(small_pet())
    for check in (force_error, stress_error, smoothness, history_error, permutation_error,
                  translation_error, wrapping_error, batch_error):  # fmt: skip
        finding = check(atoms, calculator, rng=rng())
        assert finding.verdict is PASS, finding
    # random weights know nothing of the symmetry
    assert rotation_error(atoms, calculator, rng=rng()).verdict is not PASS
    assert inversion_error(atoms, calculator, rng=rng()).verdict is not PASS


def test_errors_of_a_ladder_fall_with_the_square_of_the_step():
    steps = (1e-1, 2.5e-2, 6.25e-3)
    smooth = ladder(lambda h: np.sin(h) + h**3, 1.0, steps, 1.0)
    assert slope_of([smooth]) == pytest.approx(2.0, abs=0.1)
    assert smooth.extrapolated < 1e-3 * smooth.errors[-1]
    kinked = ladder(lambda h: np.sin(h) + max(h, 0.0), 1.0, steps, 1.0)
    assert slope_of([kinked]) < 0.1
    assert kinked.extrapolated == pytest.approx(0.5, abs=0.01)


def test_stress_of_a_finite_system():
    class Gives(EMT):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results["stress"] = np.full(6, 0.1)

    assert stress_error(cluster(), PETCalculator(small_pet((29,))), rng=rng()).verdict is SKIP
    finding = stress_error(cluster(), Gives(), rng=rng())
    assert finding.verdict is WARN
    assert "do not use it" in finding.found


def test_precisions_are_compared():
    single, double = PETCalculator(small_pet(), dtype="float32"), PETCalculator(small_pet())
    finding = precision_error(liquid(), single, double, rng=rng())
    assert finding.verdict is PASS
    assert 1e-9 < finding.values["forces"] < 1e-4
    other = PETCalculator(small_pet(seed=1))
    assert precision_error(liquid(), single, other, rng=rng()).verdict is FAIL
    assert precision_error(liquid(), EMT(), None, rng=rng()).verdict is SKIP


def test_a_leak_within_a_batch_is_caught():
    sound = broken.LennardJonesCalculator()
    assert batch_error(crystal(), sound, rng=rng()).verdict is PASS
    leaky = broken.LennardJonesCalculator(broken.LeakyLennardJones((29,), epsilon=0.3, sigma=2.3))
    assert batch_error(crystal(), leaky, rng=rng()).verdict is FAIL
    assert batch_error(crystal(), EMT(), rng=rng()).verdict is SKIP


def test_minimum_distance():
    assert coverage.minimum_distance(crystal()).verdict is PASS
    assert coverage.minimum_distance(Atoms("Cu")).verdict is PASS
    for distance, verdict in ((1.9, PASS), (1.7, WARN), (1.5, FAIL)):
        finding = coverage.minimum_distance(Atoms("Cu2", positions=[[0] * 3, [0, 0, distance]]))
        assert finding.verdict is verdict
        assert finding.values["distance"] == pytest.approx(distance)


def test_coverage_by_the_training():
    atoms, calculator = crystal(), broken.Trained()
    for check in (coverage.element_coverage, coverage.distance_coverage,
                  coverage.density_coverage, coverage.uncertainty):  # fmt: skip
        assert check(atoms, calculator).verdict is PASS, check(atoms, calculator)
        assert check(atoms, EMT()).verdict is SKIP
    dense = atoms.copy()
    dense.set_cell(dense.cell * 0.87, scale_atoms=True)
    assert coverage.distance_coverage(dense, calculator).verdict is WARN
    assert coverage.density_coverage(dense, calculator).verdict is WARN
    dense.positions[1] = dense.positions[0] + [0, 0, 1.7]
    assert coverage.distance_coverage(dense, calculator).verdict is FAIL
    atoms.numbers[3] = 79
    finding = coverage.element_coverage(atoms, calculator)
    assert finding.verdict is FAIL
    assert "atom 3 (Au)" in finding.found
    atoms.numbers[3] = 29
    calculator = broken.Trained()
    calculator.errors = (0.05, 2.0)
    assert coverage.uncertainty(atoms, calculator).verdict is FAIL
    assert coverage.density_coverage(cluster(), calculator).verdict is SKIP


def test_a_guard_ends_the_dynamics():
    class Collapses(EMT):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            d = self.atoms.positions[1] - self.atoms.positions[0]
            pull = 30.0 * d / np.linalg.norm(d)
            self.results["forces"][:2] += pull, -pull

    finding = energy_drift(cluster(), Collapses(), rng=rng(), picoseconds=1.0, seconds=60.0)
    assert finding.verdict is FAIL
    assert finding.found.startswith("stopped after")
    assert finding.values["atoms"]


def test_dynamics_that_is_too_short_says_so():
    finding = energy_drift(crystal(), broken.Slow(), rng=rng(), picoseconds=1.0, seconds=0.1)
    assert finding.verdict is WARN
    assert "too short to tell" in finding.found


def test_time_of_a_step():
    finding = performance.speed(crystal(), broken.Slow(), rng=rng(), seconds=0.2)
    assert 20.0 < finding.values["ms_per_step"] < 500.0
    per_day = 86400e3 / finding.values["ms_per_step"] * 1e-6
    assert finding.values["ns_per_day"] == pytest.approx(per_day)


MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
from ase.build import bulk
from doctor import broken
from pet_calc.doctor import performance
finding = performance.memory(bulk("Cu", cubic=True) * (2, 2, 1), broken.Hungry(), sizes=3)
import json
print(json.dumps([finding.verdict.name, finding.values]))
"""


def test_memory_is_measured_and_extrapolated():
    # in a process of its own: what earlier tests freed would hide some of the growth
    tests = Path(__file__).resolve().parents[1]
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tests)], capture_output=True, text=True, check=True
    )
    verdict, values = json.loads(found.stdout.splitlines()[-1])
    assert verdict == "INFO"
    assert values["bytes_per_atom"] == pytest.approx(1e6, rel=0.15)
    n = values["largest_repeat"]
    assert 16 * n**3 <= values["largest_atoms"] < 16 * (n + 1) ** 3
    expected = performance.USABLE * values["free_bytes"] / 1e6
    assert values["largest_atoms"] == pytest.approx(expected, rel=0.3)
    finding = performance.memory(cluster(), broken.Hungry())
    assert "no supercells" in finding.found


def test_what_does_not_grow_is_not_extrapolated():
    finding = performance.memory(bulk("Cu"), EMT(), most=10)
    assert "too little growth" in finding.found


@pytest.mark.parametrize(
    ("count", "n_atoms", "dimensions", "n"),
    [(999, 1, 3, 9), (1000, 1, 3, 10), (8, 1, 3, 2), (15, 8, 3, 1), (7, 8, 3, 0), (99, 1, 2, 9)],
)
def test_largest_repeat(count, n_atoms, dimensions, n):
    assert performance.largest_repeat(count, n_atoms, dimensions) == n


def test_slabs_and_wires_grow_along_their_periods():
    slab = crystal()
    slab.pbc = (True, True, False)
    assert (performance.doubled(slab).cell.lengths() / slab.cell.lengths()).tolist() == [2, 1, 1]
