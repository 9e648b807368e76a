"""A structure in a batch moves as it would on its own, whatever the others do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from calculators.small_potentials import liquid, small_pet

from pet_calc import PETCalculator
from pet_calc.workflows.guards import GuardConfig
from pet_calc.workflows.relax import (
    RelaxConfig,
    relax_all,
    relax_batched,
    why_not_batched,
    with_calculator,
)
from pet_calc.workflows.relax import batched as module

LOOSE = GuardConfig(contact=0.05)


@pytest.fixture(scope="module")
def calculator():
    return PETCalculator(small_pet())


@pytest.fixture(scope="module")
def structures():
    """Crystals of one molecule, of several sizes, and a molecule in the open."""
    crystals = [liquid(1, seed=s, length=3.6 + 0.2 * s) for s in range(4)]
    free = liquid(1, seed=9)
    free.pbc = False
    free.cell = None
    return crystals, [*crystals, free]


def assert_equal(one, other, atol=1e-10):
    assert one.status == other.status
    assert one.steps == other.steps
    assert one.potential == other.potential != ""
    np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=atol)
    np.testing.assert_allclose(one.atoms.cell.array, other.atoms.cell.array, atol=atol)
    assert one.energy == pytest.approx(other.energy, abs=1e-9)


def one_by_one(structures, calculator, config):
    return relax_all(with_calculator(structures, calculator), replace(config, batch=False))


@pytest.mark.parametrize("max_edges", [1, 150, None], ids=["alone", "some", "all"])
@pytest.mark.parametrize("cell", ["fixed", "free", "isotropic", "shape"])
def test_batch_equals_one_by_one(structures, calculator, cell, max_edges):
    chosen = structures[1] if cell == "fixed" else structures[0]
    config = RelaxConfig(
        cell=cell,
        fmax=0.05,
        steps=12,
        pressure=2.0 if cell in ("free", "isotropic") else 0.0,
        volume_factor=50.0,
        guards=LOOSE,
    )
    together = relax_batched(chosen, calculator, replace(config, batch_edges=max_edges))
    for one, other in zip(one_by_one(chosen, calculator, config), together, strict=True):
        assert_equal(one, other)
    # they did move, and not all for the same number of steps
    assert max(r.steps for r in together) == 12
    assert any(np.abs(r.atoms.positions - r.start.positions).max() > 0.01 for r in together)


def test_the_comparison_can_fail(structures, calculator, monkeypatch):
    config = RelaxConfig(cell="free", fmax=1e-9, steps=8, volume_factor=50.0, guards=LOOSE)
    alone = one_by_one(structures[0], calculator, config)
    monkeypatch.setattr("pet_calc.workflows.relax.fire.F_DEC", 0.6)
    monkeypatch.setattr("pet_calc.workflows.relax.fire.A_START", 0.11)
    other = relax_batched(structures[0], calculator, config)
    differ = [
        np.abs(a.atoms.positions - b.atoms.positions).max()
        for a, b in zip(alone, other, strict=True)
    ]
    assert max(differ) > 1e-6


def test_constraints_and_symmetry(calculator):
    atoms = Atoms("OH2O", pbc=True, cell=[3.6, 3.8, 4.1])
    atoms.set_scaled_positions([[0, 0, 0], [0.5, 0.5, 0.21], [0.5, 0.5, 0.79], [0.5, 0, 0.5]])
    fixed = atoms.copy()
    fixed.set_constraint(FixAtoms([1]))
    for chosen, symmetric in (([fixed, atoms], False), ([atoms, atoms], True)):
        config = RelaxConfig(
            cell="free", fmax=1e-3, steps=10, symmetrize=symmetric, volume_factor=9, guards=LOOSE
        )
        alone = one_by_one(chosen, calculator, config)
        together = relax_batched(chosen, calculator, config)
        for one, other in zip(alone, together, strict=True):
            assert_equal(one, other)
            assert one.steps > 0
    moved = together[0].atoms.get_scaled_positions()
    assert moved[1, 2] + moved[2, 2] == pytest.approx(1.0, abs=1e-12)


def test_failures_stay_with_their_structure(structures, calculator):
    good = structures[0]
    overlap = good[0].copy()
    overlap.positions[1] = overlap.positions[0] + [0, 0, 0.01]
    unknown = bulk("Cu", cubic=True)
    empty = Atoms()
    nan = good[0].copy()
    nan.positions[0, 0] = np.nan
    mixed = [overlap, good[0], unknown, good[1], empty, nan]
    config = RelaxConfig(fmax=1e-4, steps=6, guards=LOOSE)
    results = relax_batched(mixed, calculator, config)
    assert [r.status for r in results] == ["failed", "steps", "failed", "steps"] + 2 * ["failed"]
    for k, words in ((0, "nearly touch"), (2, "contains Cu"), (4, "at least one"), (5, "finite")):
        assert words in results[k].reason
        assert results[k].atoms is None
    for one, other in zip(relax_batched(good[:2], calculator, config), results[1:4:2], strict=True):
        assert_equal(one, other, atol=1e-14)
    # one by one, the causes are the same
    for one, other in zip(one_by_one(mixed, calculator, config), results, strict=True):
        assert one.status == other.status


class Sick(torch.nn.Module):
    """A model that breaks down: NaN for what has a short edge, and no memory above a size."""

    def __init__(self, model, *, shortest=0.0, memory=10**9):
        super().__init__()
        self.model, self.shortest, self.memory = model, shortest, memory
        self.largest = 0

    cutoff = property(lambda self: self.model.cutoff)
    atomic_numbers = property(lambda self: self.model.atomic_numbers)
    dtype = property(lambda self: self.model.dtype)

    def energies(self, system, edges, vectors):
        if edges.n_edges > self.memory:
            raise torch.OutOfMemoryError("no memory")
        self.largest = max(self.largest, edges.n_edges)
        energies = self.model.energies(system, edges, vectors)
        if bool((vectors.norm(dim=1) < self.shortest).any()):
            energies = energies * torch.nan
        return energies


class SickCalculator(PETCalculator):
    sick = None

    def model_for(self, *structures):
        healthy = super().model_for(*structures)
        if self.sick is None:
            self.sick = Sick(healthy, **self.how)
        return self.sick


def test_nan_of_one_structure_does_not_stop_the_others(structures):
    calculator = SickCalculator(small_pet())
    calculator.how = {"shortest": 0.5}
    bad = structures[0][0].copy()
    bad.positions[2] = bad.positions[0] + [0, 0.3, 0]
    config = RelaxConfig(fmax=1e-4, steps=3, guards=LOOSE)
    results = relax_batched([structures[0][1], bad, structures[0][2]], calculator, config)
    assert [r.status for r in results] == ["steps", "failed", "steps"]
    assert "finite" in results[1].reason


def test_a_batch_that_does_not_fit_is_divided(structures):
    chosen = structures[0]
    calculator = SickCalculator(small_pet())
    calculator.how = {"memory": 250}
    config = RelaxConfig(fmax=1e-4, steps=4, guards=LOOSE)
    results = relax_batched(chosen, calculator, config)
    assert 0 < calculator.sick.largest <= 250
    for one, other in zip(
        relax_batched(chosen, PETCalculator(small_pet()), config), results, strict=True
    ):
        assert_equal(one, other)
    calculator.sick.memory = -1
    assert {r.status for r in relax_batched(chosen, calculator, config)} == {"failed"}


class Conditioned(PETCalculator):
    """Stand-in for a model that depends on more than the atoms: a shift by their charge."""

    def model_for(self, *structures):
        neutral = super().model_for(*(Atoms(a, info={}) for a in structures))
        charged = any(a.info.get("charge", 0) for a in structures)
        return Sick(neutral, shortest=9.0) if charged else neutral


def test_a_model_of_one_structure_does_not_compute_another(structures):
    one, other = structures[0][0].copy(), structures[0][1]
    one.info["charge"] = 1
    results = relax_batched(
        [one, other], Conditioned(small_pet()), RelaxConfig(steps=1, fmax=1e-9, guards=LOOSE)
    )
    assert [r.status for r in results] == ["failed", "steps"]


def test_limit_grows_while_memory_lasts():
    limit = module.EdgeLimit(1000, growing=True)
    limit.succeeded(900, waiting=True)
    assert limit.edges == 2000
    limit.succeeded(900, waiting=True)
    limit.succeeded(1900, waiting=False)
    assert limit.edges == 2000
    assert limit.chunks([800, 800, 800]) == [slice(0, 3)]
    limit.out_of_memory(1900)
    assert limit.chunks([400, 500, 600, 2000]) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    limit.succeeded(900, waiting=True)
    assert limit.edges == 950


def test_only_some_run_together(structures, calculator):
    together = []
    config = RelaxConfig(fmax=1e-9, steps=2, batch_edges=1, guards=LOOSE)
    done = []
    relax_batched(
        structures[0],
        calculator,
        config,
        on_step=lambda n, force: together.append((n, force)),
        on_result=lambda index, result: done.append(index),
    )
    assert max(n for n, _ in together) == 1
    assert done == [0, 1, 2, 3]
    assert all(np.isfinite(force) for _, force in together)


def test_deadline(structures, calculator):
    results = relax_batched(
        structures[0], calculator, RelaxConfig(total_seconds=1e-9, guards=LOOSE)
    )
    assert {r.status for r in results} == {"not started"}
    results = relax_batched(
        structures[0], calculator, RelaxConfig(fmax=1e-9, seconds=1e-9, guards=LOOSE)
    )
    assert {r.status for r in results} == {"time"}


def test_one_by_one_is_explained(structures, calculator):
    crystals = structures[0]
    config = RelaxConfig()
    crystals, others = with_calculator(crystals, calculator), with_calculator(crystals, EMT())
    assert why_not_batched(crystals, config) is None
    assert "EMT" in why_not_batched(others, config)
    assert "different calculators" in why_not_batched([crystals[0], others[1]], config)
    assert "BFGS" in why_not_batched(crystals, RelaxConfig(optimizer="bfgs"))
    bound = crystals[0].copy()
    bound.set_constraint(FixBondLength(0, 1))
    bound.calc = calculator
    assert "FixBondLength" in why_not_batched([*crystals, bound], config)
    with pytest.raises(ValueError, match="cannot be relaxed in a batch"):
        relax_all(others, RelaxConfig(batch=True))
    with pytest.raises(ValueError, match="FIRE"):
        relax_batched(crystals, calculator, RelaxConfig(optimizer="bfgs"))


def test_choosing_one_potential_for_all_crystals_warns_of_nothing(caplog):
    calculator = PETCalculator()
    crystals = [bulk("GaAs", "zincblende", 5.75), bulk("Ga", "fcc", 4.3)]
    with caplog.at_level("WARNING", logger="pet_calc"):
        relax_all(with_calculator(crystals, calculator), RelaxConfig(steps=1))
    assert calculator.potential.crystals_only
    assert not caplog.records
