"""Steps of fixed shape: the results of the ordinary path, whatever happens between two steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from calculators.small_potentials import liquid, rare_pet, small_pet
from torch.utils._python_dispatch import TorchDispatchMode

from pet_calc import PETCalculator
from pet_calc.calculators import fixed_step
from pet_calc.calculators.fixed_step import FixedStep, PreparedStep
from pet_calc.cli.md import MDPotential
from pet_calc.errors import InvalidStructureError, SimulationError
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.models.committee import Committee
from pet_calc.models.pet import fixed_shape
from pet_calc.models.pet.fixed_shape import (
    BucketPlan,
    SlotGraph,
    evaluate_fixed,
    neighbor_counts,
    require_fixed_shape,
    with_room,
)
from pet_calc.neighbors import neighbor_list, neighbor_matrix
from pet_calc.neighbors.rows import matrix_from_edges

VARIANTS = {
    "plain": {},
    "radial": {"input_encoding": "radial"},
    "angular": {"input_encoding": "distance", "angular_degree": 2},
    "angular-turning": {"input_encoding": "radial", "angular_degree": 2},
    "residual": {"featurizer_type": "residual"},
    "post": {"transformer_type": "PostLN", "normalization": "LayerNorm", "activation": "SiLU"},
    "cosine": {"cutoff_function": "Cosine"},
    "adaptive": {"num_neighbors_adaptive": 6.0},
    "adaptive-grid": {"num_neighbors_adaptive": 6.0, "adaptive_cutoff_method": "grid"},
    "repulsion": {"short_range_repulsion": True},
    "far-repulsion": {"zbl": True, "elements": (1, 55), "num_neighbors_adaptive": 6.0},
    "heads": {"energy_heads": ("a", "b"), "energy_head": "b"},
    "charged": {"system_conditioning": True},
    "equal-widths": {"d_node": 8, "num_attention_layers": 2},
}


def deviation(found, expected):
    """Largest deviation of energies, forces and stress."""
    pairs = [(found.energies, expected.energies), (found.forces, expected.forces)]
    if not expected.stress.isnan().any():
        pairs.append((found.stress, expected.stress))
    else:
        assert found.stress.isnan().all()
    return max(float((a - b).abs().max()) for a, b in pairs)


def ordinary(model, system):
    return evaluate(model, system, neighbor_list(system, model.cutoff))


def structure(model, pbc=True):
    atoms = liquid(8)
    atoms.numbers[atoms.numbers == 8] = model.atomic_numbers[-1]
    atoms.pbc = pbc
    return system_from_atoms(atoms)


def in_slots(model, system, skin=0.7):
    matrix = neighbor_matrix(
        system.positions, system.cell, system.pbc, system.system_index, model.cutoff + skin,
        capacity=400,
    )  # fmt: skip
    assert not matrix.overflow
    return SlotGraph.of(matrix)


def charged(system, charge, spin_multiplicity=1):
    return replace(
        system, charge=torch.tensor([charge]), spin_multiplicity=torch.tensor([spin_multiplicity])
    )


def planned(model, system, graph, less=0):
    """A plan for the system, or for one with `less` neighbors of each atom."""
    counts = neighbor_counts(model, system, graph)
    return BucketPlan.of((counts - less).clamp_min(0), model.config.d_pet)


@pytest.mark.parametrize(
    ("name", "pbc"),
    [(name, True) for name in VARIANTS]
    + [(name, pbc) for name in ("plain", "far-repulsion") for pbc in (False, (True, False, True))],
)
def test_every_variant_is_the_ordinary_model(name, pbc):
    model = rare_pet(**VARIANTS[name])
    if model.repulsion is not None:
        model.repulsion.onset.fill_(1.7)
    system = structure(model, pbc)
    if model.conditioning is not None:
        system = charged(system, -2, 3)
    graph = in_slots(model, system)
    arguments = (model, system, model.species(system.numbers), graph)
    found = evaluate_fixed(*arguments, planned(model, system, graph))
    assert int(found.lacking) <= -2
    expected = ordinary(model, system)
    assert deviation(found.results, expected) < 1e-10
    assert float(expected.forces.abs().max()) > 1e-2
    # slots that are too few are told, and would be seen
    short = evaluate_fixed(*arguments, planned(model, system, graph, less=3))
    assert int(short.lacking) > 0
    assert deviation(short.results, expected) > 1e-8


def test_two_lists_are_one():
    """That of the host and that of the device, with a batch of two cells in it."""
    model = rare_pet()
    system = type(structure(model)).concatenate([structure(model), structure(model)])
    system.cell[1] *= 1.1
    edges = neighbor_list(system, model.cutoff + 0.7)
    species = model.species(system.numbers)
    for graph in (
        in_slots(model, system),
        SlotGraph.of(matrix_from_edges(edges, system.n_atoms, 60)),
    ):
        plan = planned(model, system, graph)
        found = evaluate_fixed(model, system, species, graph, plan).results
        assert deviation(found, ordinary(model, system)) < 1e-10
    with pytest.raises(ValueError, match="`capacity` must be at least"):
        matrix_from_edges(edges, system.n_atoms, 5)


def test_several_buckets(monkeypatch):
    """With activations that are kept, and with such that are recomputed."""
    monkeypatch.setattr(fixed_shape, "MANY_ATOMS", 10)
    model = rare_pet()
    atoms = liquid(8)
    atoms.pbc = False
    system = system_from_atoms(atoms)
    graph = in_slots(model, system)
    arguments = (model, system, model.species(system.numbers), graph)
    for kept, part in ((2**30, 2**20), (0, 200)):
        monkeypatch.setattr(fixed_shape, "kept_elements", lambda device, kept=kept: kept)
        monkeypatch.setattr(fixed_shape, "PART", part)
        plan = planned(model, system, graph)
        assert len({b.width for b in plan.buckets}) > 1
        assert (plan.rows is None) == (kept > 0)
        assert len(plan.buckets) > 4 or kept
        found = evaluate_fixed(*arguments, plan)
        assert int(found.lacking) < 0
        assert deviation(found.results, ordinary(model, system)) < 1e-10
        # whoever they are that have many neighbors
        flipped = system_from_atoms(atoms[::-1])
        graph_of_flipped = in_slots(model, flipped)
        numbers = model.species(flipped.numbers)
        found = evaluate_fixed(model, flipped, numbers, graph_of_flipped, plan)
        assert deviation(found.results, ordinary(model, flipped)) < 1e-10


def test_isolated_atoms():
    model = rare_pet()
    atoms = liquid(8)[:3]
    atoms.pbc = False
    atoms.positions[:] = np.diag([0.0, 10.0, 20.0])
    system = system_from_atoms(atoms)
    found = FixedStep(torch.device("cpu"), 1.0)(model, system)
    assert deviation(found, ordinary(model, system)) < 1e-10


# --- nothing waits for the device ----------------------------------------------------------------

WAITING = (
    "_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "is_nonzero", "equal",
    "repeat_interleave", "bincount", "lift_fresh",
)  # fmt: skip


class NothingWaits(TorchDispatchMode):
    """Refuses operations whose shape depends on data, and numbers that travel to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.lstrip("_")
        if any(name.startswith(w.lstrip("_")) for w in WAITING):
            raise AssertionError(f"{name} makes the host wait")
        if name.startswith("index") and isinstance(args[1], list | tuple):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), (
                "an index of truth values makes the host wait"
            )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x.index_put((x > 0,), x),
        lambda x: torch.unique(x),
        lambda x: x.new_tensor(3.0),
        lambda x: x.repeat_interleave(x.long()),
    ],
)
def test_what_waits_is_noticed(waits):
    with pytest.raises(AssertionError, match="makes the host wait"), NothingWaits():
        waits(torch.ones(3))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_operation_of_a_step_waits(name):
    model = rare_pet(**VARIANTS[name])
    system = structure(model)
    graph = in_slots(model, system)
    step = PreparedStep(model, system, graph, planned(model, system, graph))
    with NothingWaits():
        packed = step.packed()
    assert packed.shape == (3 + 1 + 6 + 4 * system.n_atoms,)


# --- between the steps ---------------------------------------------------------------------------


@pytest.fixture
def model():
    return small_pet().requires_grad_(False)


def walk(atoms, model, step, n_steps=12, size=0.05, seed=0):
    """Move, step, compare with the ordinary path."""
    generator = np.random.default_rng(seed)
    for _ in range(n_steps):
        atoms.positions += size * generator.standard_normal(atoms.positions.shape)
        system = system_from_atoms(atoms)
        assert deviation(step(model, system), ordinary(model, system)) < 1e-10


def test_a_walk(model):
    step = FixedStep(torch.device("cpu"), 1.0)
    walk(liquid(8), model, step)
    assert step.n_prepared == 1
    assert 1 < step.n_lists < 8
    # most lists are renewed before they fail
    assert step.n_steps <= 14


def test_a_jump_is_made_again(model):
    step = FixedStep(torch.device("cpu"), 1.0)
    atoms = liquid(8)
    walk(atoms, model, step, n_steps=1)
    walk(atoms, model, step, n_steps=1, size=0.4)
    assert (step.n_prepared, step.n_lists, step.n_steps) == (1, 2, 3)


def test_a_list_that_is_too_old_would_be_seen(model):
    """Positive control: without the check on displacements results are wrong."""
    step = FixedStep(torch.device("cpu"), 1.0)
    atoms = liquid(8)
    walk(atoms, model, step, n_steps=1)
    step.skin = 100.0
    with pytest.raises(AssertionError):
        walk(atoms, model, step, n_steps=1, size=0.8)


@pytest.mark.parametrize("skin", [0.0, 0.5])
def test_more_neighbors_than_slots(model, skin):
    step = FixedStep(torch.device("cpu"), skin)
    atoms = liquid(8, length=9.0)
    walk(atoms, model, step, n_steps=2)
    first = step._prepared.plan.n_slots
    positions = atoms.positions.copy()
    # in the reach of the list before, so that only the network's slots overflow: then in both
    for scale in (0.97, 0.6):
        atoms.positions[:] = positions * scale
        walk(atoms, model, step, n_steps=1, size=0.0)
    assert step._prepared.plan.n_slots > first
    assert step.n_prepared >= 2


def test_overflow_of_the_network_alone(model, monkeypatch):
    monkeypatch.setattr(fixed_shape, "with_room", lambda n: n)
    step = FixedStep(torch.device("cpu"), 2.0)
    atoms = liquid(8, length=7.0)
    walk(atoms, model, step, n_steps=10, size=0.04)
    assert step.n_prepared > 1
    assert step.n_steps == 10 + step.n_prepared - 1 + (step.n_lists - step.n_prepared)


def test_room():
    assert [with_room(n) for n in (0, 5, 100)] == [2, 7, 111]


def test_whatever_changes(model):
    step = FixedStep(torch.device("cpu"), 1.0)
    atoms = liquid(8)
    walk(atoms, model, step, n_steps=1)
    atoms.wrap()
    walk(atoms, model, step, n_steps=1, size=0.0)
    assert step.n_prepared == 1
    atoms.set_cell(atoms.cell * 1.03, scale_atoms=False)
    walk(atoms, model, step, n_steps=2)
    assert (step.n_prepared, step.n_lists) == (1, 3)
    atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]
    walk(atoms, model, step, n_steps=1)
    assert step.n_prepared == 1
    atoms.pbc = (True, True, False)
    walk(atoms, model, step, n_steps=1)
    del atoms[:3]
    walk(atoms, model, step, n_steps=1)
    other = small_pet(seed=1).requires_grad_(False)
    walk(atoms, other, step, n_steps=1)
    assert step.n_prepared == 4


def test_charges_are_told_apart():
    model = rare_pet(system_conditioning=True)
    step = FixedStep(torch.device("cpu"), 1.0)
    system = structure(model)
    found = []
    for charge in (0, 1, 1):
        state = charged(system, charge)
        found.append(step(model, state))
        assert deviation(found[-1], ordinary(model, state)) < 1e-10
    assert deviation(found[0], found[1]) > 1e-6
    assert step.n_prepared == 1


def test_a_first_step_that_differs_is_not_believed(model, monkeypatch, caplog):
    def wrong(*arguments):
        found = evaluate_fixed(*arguments)
        return replace(found, results=replace(found.results, forces=found.results.forces + 1e-8))

    monkeypatch.setattr(fixed_step, "evaluate_fixed", wrong)
    atoms = liquid(8)
    atoms.calc = PETCalculator(model, cuda_graph=True, device="cpu")
    for _ in range(2):
        system = system_from_atoms(atoms)
        assert abs(atoms.get_forces() - ordinary(model, system).forces.numpy()).max() < 1e-12
        atoms.rattle(0.01)
    assert len(caplog.records) == 1
    assert "force differs by 1.0e-08 eV/Å, allowed are" in caplog.text
    assert atoms.calc._fixed.n_steps == 1


def test_refusals(model):
    with pytest.raises(ValueError, match="need one plain PET, got Committee"):
        require_fixed_shape(Committee([model, model]))
    with pytest.raises(ValueError, match="without local frames"):
        require_fixed_shape(rare_pet(ecse="layerwise", input_encoding="radial"))
    with pytest.raises(ValueError, match="derivatives of the energy"):
        PETCalculator(model, cuda_graph=True, non_conservative=True)
    atoms = liquid(8)
    atoms.calc = PETCalculator(model, cuda_graph=True, ecse="structure")
    with pytest.raises(ValueError, match="need one plain PET"):
        atoms.get_potential_energy()


def test_structures_that_cannot_be_computed(model):
    step = FixedStep(torch.device("cpu"), 1.0)
    atoms = liquid(8)
    atoms.positions[1] = atoms.positions[0] + 0.01
    with pytest.raises(InvalidStructureError, match=r"atoms 0 .* and 1"):
        step(model, system_from_atoms(atoms))
    broken = small_pet().requires_grad_(False)
    broken.energy_scale.fill_(torch.inf)
    with pytest.raises(SimulationError, match="must give finite numbers"):
        step(broken, system_from_atoms(liquid(8)))


def test_the_calculator(model):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    runs = {}
    for cuda_graph in (False, True):
        atoms = liquid(8)
        atoms.calc = PETCalculator(model, cuda_graph=cuda_graph, device="cpu")
        atoms.set_momenta(np.random.default_rng(0).standard_normal((24, 3)))
        VelocityVerlet(atoms, 0.5 * units.fs).run(8)
        runs[cuda_graph] = atoms
    a, b = runs.values()
    assert abs(a.positions - b.positions).max() < 1e-10
    assert abs(a.get_stress() - b.get_stress()).max() < 1e-10
    assert abs(a.get_potential_energies() - b.get_potential_energies()).max() < 1e-10
    spread = [x.calc.get_property("energy_rotation_std", x) for x in (a, b)]
    assert abs(spread[0] - spread[1]) < 1e-10
    assert "cuda_graph=True" in repr(b.calc)
    assert b.calc.todict()["cuda_graph"] is True
    assert "cuda_graph" not in a.calc.todict()
    assert b.calc._fixed.n_prepared == 1
    b.calc.reset()
    assert b.calc._fixed.n_prepared == 0
    assert b.get_potential_energy() == pytest.approx(a.get_potential_energy(), abs=1e-10)


def test_the_option_of_the_command_line():
    assert MDPotential(device="cpu", cuda_graph=True).load("float32").cuda_graph
    assert not MDPotential(device="cpu").load("float32").cuda_graph
    with pytest.raises(typer.BadParameter, match="brings its own model"):
        MDPotential(calculator="ase.calculators.emt:EMT", cuda_graph=True).load("float32")


@pytest.mark.gpu
def test_a_walk_on_the_gpu(model):
    moved = small_pet(dtype=torch.float64).requires_grad_(False).cuda()
    step = FixedStep(torch.device("cuda"), 1.0)
    atoms = liquid(8)
    generator = np.random.default_rng(0)
    for k in range(12):
        atoms.positions += (0.4 if k == 6 else 0.05) * generator.standard_normal((24, 3))
        system = system_from_atoms(atoms)
        assert deviation(step(moved, system), ordinary(model, system)) < 1e-10
    assert step.n_prepared <= 2
