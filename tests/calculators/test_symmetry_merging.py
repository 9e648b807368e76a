"""Views of a crystal that its space group makes equal are evaluated once, with the same results."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import refine_symmetry
from calculators.test_symmetry import space_group, tiny
from contracts.models import random_pet
from contracts.structures import STRUCTURES
from scipy.spatial.transform import Rotation

from pet_calc import PETCalculator
from pet_calc.calculators import space_group as finder
from pet_calc.calculators.space_group import operations_of
from pet_calc.geometry import System, edge_vectors
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import Results, evaluate
from pet_calc.models.ecse import ensemble as ensemble_module
from pet_calc.models.ecse import operations as merging
from pet_calc.models.ecse.ensemble import Ensemble
from pet_calc.neighbors import neighbor_list

CPU = torch.device("cpu")


def turned(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.set_cell(np.array(atoms.cell) @ Rotation.random(random_state=1).as_matrix(), True)
    return atoms


def optical() -> Atoms:
    """Diamond with one sublattice moved along a cubic axis: forces in a crystal with symmetry."""
    atoms = bulk("Si", a=5.43, cubic=True)
    atoms.positions[[0, 2, 4, 6]] += [0.0, 0.0, 0.2]
    return turned(atoms)


def quartz() -> Atoms:
    """Chiral, all of its operations proper, with atoms that feel forces."""
    sites = [(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)]
    cell = [4.916, 4.916, 5.405, 90, 90, 120]
    return turned(crystal(["Si", "O"], sites, spacegroup=152, cellpar=cell))


# elements that the models of the contract suite know
CRYSTALS = {
    "fcc": lambda: turned(bulk("Si", "fcc", a=3.6)),
    "diamond": lambda: turned(bulk("Si", "diamond", a=5.43)),
    "rock salt": lambda: turned(bulk("SiO", "rocksalt", a=5.4)),
    "hcp": lambda: turned(bulk("Si", "hcp", a=3.2, c=5.1)),
    "optical": optical,
    "quartz": quartz,
}
#: Views with and without merging.
COUNTS = {
    "fcc": (48, 1), "diamond": (48, 1), "rock salt": (96, 1), "hcp": (96, 4), "optical": (32, 1),
    "quartz": (48, 8),
}  # fmt: skip


def both(system: System, seed: int = 0, **options) -> tuple[Results, Results, int, int]:
    """Results of all views and of merged ones, and the numbers of views."""
    model = random_pet(seed)
    edges = neighbor_list(system, model.cutoff)
    vectors = edge_vectors(system, edges)
    found = []
    for find_operations in (None, operations_of):
        wrapped = Ensemble(model, "structure", find_operations=find_operations, **options)
        views = wrapped.views(system, edges, vectors)
        operations = wrapped.operations(system)
        if operations is not None:
            views = merging.merged(views, operations)
        found.append((evaluate(wrapped, system, edges), views.n_views))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def agree(first: Results, second: Results, energy: float = 1e-10, force: float = 1e-9) -> None:
    assert (first.energy - second.energy).abs().max() < energy
    assert (first.energies - second.energies).abs().max() < energy
    assert first.forces is not None
    assert second.forces is not None
    assert (first.forces - second.forces).abs().max() < force
    assert first.stress is not None
    assert second.stress is not None
    gap = (first.stress - second.stress)[~first.stress.isnan()]
    assert not len(gap) or gap.abs().max() < force


@pytest.mark.parametrize("name", sorted(CRYSTALS))
def test_merged_views_give_the_same_results(name: str) -> None:
    system = system_from_atoms(CRYSTALS[name](), CPU)
    every, few, n_every, n_few = both(system)
    assert (n_every, n_few) == COUNTS[name]
    agree(every, few)


def test_rotations_alone() -> None:
    """Without mirrored views only proper operations make views equal."""
    every, few, n_every, n_few = both(system_from_atoms(quartz(), CPU), mirrored=False)
    assert (n_every, n_few) == (24, 4)
    agree(every, few)


@pytest.mark.parametrize("amplitude", [1e-13, 1e-12, 1e-11, 1e-10, 1e-8, 1e-5, 0.02])
@pytest.mark.parametrize("name", ["diamond", "rock salt", "hcp"])
def test_a_structure_that_is_nearly_symmetric(name: str, amplitude: float) -> None:
    """On both sides of the precision at which a structure counts as symmetric."""
    atoms = CRYSTALS[name]()
    shifts = np.random.default_rng(0).standard_normal(atoms.positions.shape)
    atoms.positions += amplitude * shifts
    strain = np.eye(3) + amplitude * np.random.default_rng(1).standard_normal((3, 3))
    atoms.set_cell(np.array(atoms.cell) @ strain, True)
    every, few, _, n_few = both(system_from_atoms(atoms, CPU))
    agree(every, few)
    assert amplitude >= 1e-11 or n_few == COUNTS[name][1]


def test_a_loose_precision_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: operations that are wrong by 1e-6 Å, taken for exact."""
    monkeypatch.setattr(finder, "EXACT", 1e-5)
    monkeypatch.setattr(merging, "SAME_VIEW", 1e-4)
    atoms = CRYSTALS["hcp"]()
    atoms.positions += 1e-6 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    with pytest.raises(AssertionError):
        agree(*both(system_from_atoms(atoms, CPU))[:2])


def test_results_without_the_mean_over_the_group_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positive control: forces of the classes alone."""
    system = system_from_atoms(quartz(), CPU)
    model = random_pet()
    edges = neighbor_list(system, model.cutoff)
    wrapped = Ensemble(model, "structure", find_operations=operations_of)
    complete = evaluate(wrapped, system, edges)
    monkeypatch.setattr(ensemble_module, "averaged", lambda results, *_: results)
    raw = evaluate(wrapped, system, edges)
    assert (raw.energy - complete.energy).abs().max() < 1e-10
    assert raw.forces is not None
    assert complete.forces is not None
    assert (raw.forces - complete.forces).abs().max() > 1e-3


def test_batches_and_structures_without_symmetry() -> None:
    """Crystals between a molecule and a liquid, each with its own operations."""
    rattled = CRYSTALS["diamond"]()
    rattled.rattle(0.05, seed=2)
    parts = [
        system_from_atoms(CRYSTALS["rock salt"](), CPU), STRUCTURES["water-24"](),
        system_from_atoms(quartz(), CPU), system_from_atoms(rattled, CPU),
        system_from_atoms(Atoms("CO2".replace("C", "Si"), [[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]]),
                          CPU),
    ]  # fmt: skip
    every, few, n_every, n_few = both(System.concatenate(parts))
    agree(every, few)
    single = [both(part)[3] for part in parts]
    assert n_few == sum(single) < n_every
    # forces and stress of a batch are those of its members
    forces = torch.cat([both(part)[1].forces for part in parts])  # type: ignore[misc]
    assert few.forces is not None
    assert (forces - few.forces).abs().max() < 1e-9


def test_supercells_cost_no_more_views() -> None:
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    every, few, n_every, n_few = both(system_from_atoms(atoms, CPU))
    assert (n_every, n_few) == (192, 1)
    agree(every, few)


def test_operations_are_a_group_that_maps_the_structure_on_itself() -> None:
    atoms = quartz()
    (found,) = operations_of(system_from_atoms(atoms, CPU))
    assert found.rotation.shape == (6, 3, 3)
    products = torch.einsum("iab,jbc->ijac", found.rotation, found.rotation).reshape(-1, 3, 3)
    gaps = (products[:, None] - found.rotation[None]).abs().amax(dim=(2, 3))
    assert gaps.min(dim=1).values.max() < 1e-12
    for rotation, image in zip(found.rotation.numpy(), found.image.numpy(), strict=True):
        moved = atoms.positions @ rotation.T - atoms.positions[image]
        scaled = (moved - moved[0]) @ np.linalg.inv(np.array(atoms.cell))
        assert np.abs(scaled - np.round(scaled)).max() < 1e-11
        assert np.array_equal(atoms.numbers[image], atoms.numbers)


def test_no_group_where_there_is_no_crystal(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = bulk("Si", cubic=True)
    layer.pbc = (True, True, False)
    assert len(operations_of(system_from_atoms(layer, CPU))[0].rotation) == 1
    crystal_ = system_from_atoms(bulk("Si"), CPU)
    assert len(operations_of(crystal_)[0].rotation) == 48
    monkeypatch.setattr(finder, "find_spec", lambda name: None)
    assert importlib.util.find_spec("spglib") is not None
    assert len(operations_of(crystal_)[0].rotation) == 1


def test_operations_belong_to_whole_structures() -> None:
    with pytest.raises(ValueError, match="'structure' alone"):
        Ensemble(random_pet(), "quadrature", find_operations=operations_of)


RELAXED = {
    "diamond": lambda: bulk("Si", "diamond", a=5.3),
    "rock salt": lambda: bulk("NaCl", "rocksalt", a=5.4),
    "hcp": lambda: bulk("Mg", "hcp", a=3.1, c=5.0),
}


@pytest.mark.parametrize("name", sorted(RELAXED))
def test_auto_merges_all_along_a_relaxation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a strained, rattled and symmetrized cell; rounding must not undo the merging."""
    atoms = RELAXED[name]()
    before = space_group(atoms, 1e-5)
    atoms.rattle(1e-3, seed=3)
    atoms.set_cell(np.array(atoms.cell) * 1.02, True)
    refine_symmetry(atoms, symprec=0.05)
    atoms = turned(atoms)
    counts: list[int] = []
    original = merging.merged

    def counted(views, operations):  # type: ignore[no-untyped-def]
        found = original(views, operations)
        counts.append(found.n_views)
        return found

    monkeypatch.setattr("pet_calc.models.ecse.ensemble.merged", counted)
    atoms.calc = PETCalculator(tiny(), ecse="auto")
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=15)
    assert space_group(atoms, 1e-5) == before
    assert space_group(atoms, 1e-9) == before
    assert len(counts) > 3
    assert max(counts) <= 16, "of about a hundred"
