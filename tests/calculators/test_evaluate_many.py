"""Many structures at once give what each of them gives on its own."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from calculators.small_potentials import liquid, publish, rare_pet, small_pet

from pet_calc import PETCalculator
from pet_calc.calculators import batches
from pet_calc.calculators.results import ase_results
from pet_calc.errors import InvalidStructureError, SimulationError, UnsupportedElementError
from pet_calc.geometry.graph import BATCH_EDGES

RATTLED = [
    liquid(1, length=4.0),
    molecule("H2O"),
    liquid(8),
    Atoms("O", pbc=True, cell=[2.2, 2.3, 2.5]),
    Atoms("H"),
    liquid(1, seed=3, length=3.1),
]


def largest_difference(one, other):
    """Largest absolute deviation of any of the results."""
    assert list(one) == list(other)
    found = [0.0]
    for name, value in one.items():
        a, b = np.asarray(value), np.asarray(other[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.dtype == np.float64, name
        assert np.isfinite(a).all(), name
        found.append(float(np.abs(a - b).max()) if a.size else 0.0)
    return max(found)


def charged():
    """Structures that differ in charge and spin, some without either."""
    states = [{}, {"charge": 1, "spin": 2}, {"charge": -1, "spin": 2}, {}, {"spin": 3}, {}]
    structures = [a.copy() for a in RATTLED]
    for atoms, state in zip(structures, states, strict=True):
        atoms.info.update(state)
    return structures


DIRECT = {"direct_forces": True, "direct_stress": True}
CALCULATORS = {
    "plain": lambda: PETCalculator(small_pet()),
    "committee": lambda: PETCalculator([small_pet(), small_pet(seed=1)]),
    "layerwise": lambda: PETCalculator(rare_pet(ecse="layerwise")),
    "structure": lambda: PETCalculator(rare_pet(), ecse="structure"),
    "adaptive": lambda: PETCalculator(rare_pet(num_neighbors_adaptive=6.0)),
    "direct": lambda: PETCalculator(rare_pet(**DIRECT), non_conservative=True),
    "charges": lambda: PETCalculator(rare_pet(system_conditioning=True)),
    "charges-structure": lambda: PETCalculator(
        rare_pet(system_conditioning=True), ecse="structure"
    ),
}


@pytest.mark.parametrize("name", CALCULATORS)
def test_batch_equals_single(name):
    calculator = CALCULATORS[name]()
    chosen = charged() if name.startswith("charges") else RATTLED
    if "structure" in name:  # as many evaluations as there are frames
        chosen = [a for a in chosen if len(a) < 10]
    alone = [calculator.evaluate(a) for a in chosen]
    for max_edges in (None, 60, 1):
        together = calculator.evaluate_many(chosen, max_edges=max_edges)
        for one, other in zip(alone, together, strict=True):
            assert largest_difference(one, other) < 1e-10
    # control: neighbors in the list are told apart
    assert largest_difference(alone[0], calculator.evaluate(chosen[-1])) > 1e-4


def test_charge_matters():
    calculator = CALCULATORS["charges"]()
    with_charge = calculator.evaluate_many(charged())
    without = calculator.evaluate_many(RATTLED)
    same = [largest_difference(a, b) < 1e-10 for a, b in zip(with_charge, without, strict=True)]
    assert same == [not a.info for a in charged()]


def test_number_of_calls(monkeypatch):
    calls = []
    calculator = PETCalculator(small_pet())
    original = calculator._evaluate

    def counted(model, system, edges):
        calls.append((system.n_systems, edges.n_edges))
        return original(model, system, edges)

    monkeypatch.setattr(calculator, "_evaluate", counted)
    seen = []
    calculator.evaluate_many(RATTLED, on_progress=lambda *x: seen.append(x))
    assert [n for n, _ in calls] == [len(RATTLED)]
    assert seen == [(6, 6)]
    calls.clear()
    calculator.evaluate_many(iter(RATTLED), max_edges=100)
    assert len(calls) > 1
    assert sum(n for n, _ in calls) == len(RATTLED)
    assert all(n == 1 or edges <= 100 for n, edges in calls)
    assert calculator.evaluate_many([]) == []


def test_cache_of_the_calculator_is_left_alone():
    calculator = PETCalculator(small_pet())
    atoms = RATTLED[2].copy()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    calculator.evaluate_many(RATTLED)
    assert calculator.results["energy"] == energy
    assert calculator.check_state(atoms) == []


def test_auto_takes_potentials_in_turn(tmp_path, monkeypatch):
    root = publish(tmp_path / "potentials", a_v1="H O", b_v1="Al")
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (root,))
    aluminum = bulk("Al", cubic=True)
    aluminum.positions[0] += 0.1
    mixed = [RATTLED[0], aluminum, RATTLED[1], aluminum, RATTLED[4]]
    calculator = PETCalculator(dtype="float64")
    together = calculator.evaluate_many(mixed)
    for atoms, result in zip(mixed, together, strict=True):
        assert largest_difference(PETCalculator(dtype="float64").evaluate(atoms), result) < 1e-10


def overlapping():
    atoms = RATTLED[0].copy()
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.01]
    return atoms


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (overlapping(), InvalidStructureError, "at least 0.1 Å apart"),
        (bulk("Cu"), UnsupportedElementError, "contains? Cu|contains Cu"),
        (Atoms("O", info={"charge": 2}), InvalidStructureError, "does not support charged"),
        (Atoms(), InvalidStructureError, "at least one"),
    ],
    ids=["overlap", "element", "charge", "empty"],
)
def test_failure_is_named(bad, error, words):
    calculator = PETCalculator(small_pet())
    with pytest.raises(error, match=rf"structure 2 of 4 .*({words})"):
        calculator.evaluate_many([RATTLED[0], RATTLED[1], bad, RATTLED[2]])
    limit = batches.EdgeLimit.for_device(calculator.device)
    answers = batches.evaluate_in_batches(calculator, [RATTLED[0], bad, RATTLED[2]], limit)
    assert isinstance(answers[1], error)
    expected = calculator.evaluate(RATTLED[2])
    assert largest_difference(ase_results(answers[2], stress=True), expected) < 1e-10


class Broken(PETCalculator):
    """NaN for anything charged by mark, and no memory above a number of edges."""

    memory = 10**9

    def _unverified(self, model, system, edges):
        if edges.n_edges > self.memory:
            raise torch.OutOfMemoryError("no memory")
        results = super()._unverified(model, system, edges)
        marked = (system.cell[:, 0, 0] == 3.1)[system.system_index]
        results.forces[marked] = torch.nan
        return results


def test_bad_member_does_not_spoil_the_batch():
    calculator = Broken(small_pet())
    with pytest.raises(SimulationError, match=r"structure 5 of 6 .*force of atom 0"):
        calculator.evaluate_many(RATTLED)
    assert len(calculator.evaluate_many(RATTLED[:5])) == 5


def test_memory_is_found_by_halving():
    calculator = Broken(small_pet())
    chosen = [RATTLED[0]] * 8
    size = batches.prepare(calculator, RATTLED[0]).edges.n_edges
    calculator.memory = 3 * size
    limit = batches.EdgeLimit(10**6, growing=True)
    answers = batches.evaluate_in_batches(calculator, chosen, limit)
    assert limit.edges == 2 * size
    assert not limit.growing
    plain = PETCalculator(small_pet()).evaluate(RATTLED[0])
    assert all(largest_difference(plain, ase_results(a, stress=True)) < 1e-10 for a in answers)
    calculator.memory = size - 1
    with pytest.raises(SimulationError, match=r"structure 0 of 8 .*must fit into the memory"):
        calculator.evaluate_many(chosen)


def test_limit_of_a_device():
    assert batches.EdgeLimit.for_device(torch.device("cuda")).growing
    assert not batches.EdgeLimit.for_device(torch.device("cuda"), 100).growing
    assert batches.EdgeLimit.for_device(torch.device("cpu")).edges == BATCH_EDGES
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        PETCalculator(small_pet()).evaluate_many(RATTLED, max_edges=0)


def test_structures_that_one_potential_suits_share_it_and_others_do_not(caplog):
    crystals = [bulk("Li"), bulk("Si"), bulk("Mo"), bulk("MgO", "rocksalt", a=4.2), bulk("Mg")]
    calculator = PETCalculator()
    with caplog.at_level("INFO", logger="pet_calc"):
        found = calculator.evaluate_many(crystals)
    chosen = [r.getMessage() for r in caplog.records if r.levelname == "INFO"]
    assert [m.split()[3][:8] for m in chosen] == ["pet-pbe-", "pet-mgo-", "pet-gene"]
    for atoms, results in zip(crystals, found, strict=True):
        alone = PETCalculator().evaluate(atoms)  # whatever was computed before
        assert results["energy"] == pytest.approx(alone["energy"], abs=1e-4)
