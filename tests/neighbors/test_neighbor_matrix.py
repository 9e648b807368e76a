"""The neighbor matrix against vesin, its shapes, its vectors, and the choice of its provider."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.structures import STRUCTURES, one_atom, system, water_box
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_calc.errors import InvalidStructureError, MissingDependencyError
from pet_calc.geometry import System, edge_vectors
from pet_calc.kernels.neighbor_matrix.reference import (
    EMPTY,
    matrix_from_keys,
    reciprocal_vectors,
    unsearchable,
    wrapped,
)
from pet_calc.kernels.operation import Selection, selecting, using_kernels
from pet_calc.neighbors import device, image_counts, neighbor_list, neighbor_matrix
from pet_calc.neighbors.api import vesin_list
from pet_calc.neighbors.nvalchemi import matrix_from_arrays

CELLS = {
    "cubic": 4.0 * np.eye(3),
    "triclinic": np.array([[3.9, 0.3, -0.2], [1.1, 4.2, 0.4], [-0.9, 0.8, 3.6]]),
    "left-handed": np.array([[0.2, 4.1, 0.3], [4.4, 0.2, -0.9], [0.7, 1.1, 4.2]]),
    "skewed": np.array([[3.0, 0.0, 0.0], [7.4, 2.8, 0.0], [-5.1, 6.3, 3.1]]),
    "flat": np.diag([9.0, 1.6, 5.0]),
    # those of free directions are ignored
    "dependent": np.array([[4.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
}
MIXES = list(itertools.product((False, True), repeat=3))


def names(pbc):
    return "".join("FT"[p] for p in pbc)


def random_system(cell, pbc, n_atoms, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    scale = cell if abs(np.linalg.det(cell)) > 1 else 4 * np.eye(3)
    fractional = 0.5 + spread * (rng.random((n_atoms, 3)) - 0.5)
    return system(fractional @ scale, rng.integers(1, 9, n_atoms), cell, pbc)


def build(structure, cutoff, capacity=400, **options):
    s = structure
    return neighbor_matrix(
        s.positions, s.cell, s.pbc, s.system_index, cutoff, capacity=capacity, **options
    )


def same_edges(found, expected):
    return (
        torch.equal(found.edge_index, expected.edge_index)
        and torch.equal(found.cell_shifts, expected.cell_shifts)
        and torch.equal(found.reverse_edge, expected.reverse_edge)
    )


def assert_consistent(matrix, structure):
    """Types and shapes, what empty slots hold, and that the partner of the partner is oneself."""
    n, m = structure.n_atoms, matrix.capacity
    shapes = {
        "neighbors": ((n, m), torch.int32),
        "shifts": ((n, m, 3), torch.int32),
        "count": ((n,), torch.int32),
        "reverse": ((n, m), torch.int64),
        "overflow": ((), torch.bool),
    }
    for name, (shape, dtype) in shapes.items():
        tensor = getattr(matrix, name)
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name
    occupied = torch.arange(m) < matrix.count[:, None]
    assert torch.equal(matrix.occupied, occupied)
    assert (matrix.neighbors[~occupied] == n).all()
    assert (matrix.shifts[~occupied] == 0).all()
    slots = torch.arange(n * m)
    flat = matrix.reverse.reshape(-1)
    assert torch.equal(flat[flat], slots)
    assert torch.equal(flat == slots, ~occupied.reshape(-1)), "an edge is never its own reverse"
    center = (slots // m).reshape(n, m)
    assert torch.equal(center.reshape(-1)[flat][occupied.reshape(-1)], matrix.neighbors[occupied])
    assert torch.equal(matrix.shifts.reshape(-1, 3)[flat], -matrix.shifts.reshape(-1, 3))


def assert_is_vesins(structure, cutoff, capacity=400):
    matrix = build(structure, cutoff, capacity)
    assert not matrix.overflow
    assert_consistent(matrix, structure)
    edges, expected = matrix.to_edges(), vesin_list(structure, cutoff)
    assert same_edges(edges, expected)
    return edges


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        *itertools.product([c for c in CELLS if c != "dependent"], MIXES),
        *(("dependent", (a, b, False)) for a, b, c in MIXES if not c and not (a and b)),
    ],
    ids=lambda x: x if isinstance(x, str) else names(x),
)
@pytest.mark.parametrize("cutoff", [1.9, 4.6])
def test_equals_vesin(cell, pbc, cutoff):
    edges = assert_is_vesins(random_system(CELLS[cell], pbc, 6, seed=0, spread=3.0), cutoff)
    if cutoff > 4 and any(pbc):
        assert edges.n_edges > 0


@pytest.mark.parametrize("cell", ["cubic", "triclinic", "left-handed"])
def test_one_atom_sees_its_own_images_beyond_three_cells(cell):
    edges = assert_is_vesins(random_system(CELLS[cell], (True,) * 3, 1, seed=1), 12.5, 600)
    assert edges.cell_shifts.abs().max() >= 3
    assert edges.n_edges > 100


@pytest.mark.parametrize("cell", ["cubic", "triclinic", "skewed"])
def test_atoms_may_be_many_cells_away(cell):
    near = random_system(CELLS[cell], (True,) * 3, 5, seed=2)
    shifts = torch.tensor([[0, 0, 0], [7, -3, 2], [-40, 11, 0], [0, 0, 25], [1, 1, -1]])
    far = replace(near, positions=near.positions + shifts.double() @ near.cell[0])
    edges, home = assert_is_vesins(far, 4.0), build(near, 4.0).to_edges()
    i, j = home.edge_index
    moved = home.cell_shifts + shifts[i] - shifts[j]
    table = sorted(zip(i.tolist(), j.tolist(), moved.tolist(), strict=True))
    assert table == sorted(zip(*edges.edge_index.tolist(), edges.cell_shifts.tolist(), strict=True))


def test_batch_of_all_kinds():
    batch = System.concatenate([make() for make in STRUCTURES.values()])
    assert assert_is_vesins(batch, 3.7, 64).n_edges > 500


@pytest.mark.parametrize(
    "structure",
    [one_atom(), system([[0.0, 0, 0], [0, 0, 9]], [1, 1]), system(np.zeros((0, 3)), [])],
    ids=["one-atom", "far", "none"],
)
def test_no_pairs(structure):
    matrix = build(structure, 5.0, capacity=3)
    assert_consistent(matrix, structure)
    assert matrix.to_edges().n_edges == 0
    assert matrix.vectors(structure.positions, structure.cell, structure.system_index).sum() == 0


def test_pairs_at_the_cutoff_are_left_out():
    pair = system([[0.0, 0, 0], [0, 0, 3.0]], [1, 1])
    assert build(pair, 3.0).count.sum() == 0
    assert build(pair, 3.0 + 1e-12).count.sum() == 2


@given(
    matrix=st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    pbc=st.sampled_from(MIXES),
    n_atoms=st.integers(1, 5),
    cutoff=st.floats(0.5, 4.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=60)
def test_equals_vesin_on_random_cells(matrix, pbc, n_atoms, cutoff, seed):
    cell = 3.5 * np.eye(3) + 1.3 * np.reshape(matrix, (3, 3))
    if np.abs(np.linalg.det(cell)) < 10:
        cell = 3.5 * np.eye(3)
    assert_is_vesins(random_system(cell, pbc, n_atoms, seed, spread=2.5), cutoff)


def test_a_dropped_pair_is_seen():
    """Control: the comparison of this file fails for a list without one of its edges."""
    structure = water_box()
    matrix, expected = build(structure, 3.0, 32), vesin_list(structure, 3.0)
    first = int(torch.nonzero(matrix.occupied.reshape(-1))[0])
    neighbors = matrix.neighbors.clone()
    neighbors.view(-1)[first] = structure.n_atoms
    assert same_edges(matrix.to_edges(), expected)
    spoilt = replace(matrix, neighbors=neighbors)
    assert not same_edges(spoilt.to_edges(), expected)
    with pytest.raises(AssertionError):
        assert_consistent(spoilt, structure)
    for change in ("shifts", "reverse"):
        tensor = getattr(matrix, change).clone()
        tensor[3, 0] += 1
        assert not same_edges(replace(matrix, **{change: tensor}).to_edges(), expected)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_are_those_of_the_edges_with_their_derivatives(dtype):
    batch = System.concatenate([STRUCTURES[k]() for k in ("slab-9", "molecule-4", "water-24")])
    matrix = build(batch, 3.2, 48)
    edges = vesin_list(batch, 3.2)
    found = batch.positions.to(dtype, copy=True).requires_grad_()
    box = batch.cell.to(dtype, copy=True).requires_grad_()
    expected = batch.positions.clone().requires_grad_()
    box_expected = batch.cell.clone().requires_grad_()
    vectors = matrix.vectors(found, box, batch.system_index, empty=3.2)
    assert vectors.dtype == dtype
    assert (vectors[~matrix.occupied] == torch.tensor([3.2, 0, 0], dtype=dtype)).all()
    theirs = edge_vectors(replace(batch, positions=expected, cell=box_expected), edges)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    mine = vectors[matrix.occupied]
    assert (mine - theirs).abs().max() < tolerance
    vectors.norm(dim=-1).sin().sum().backward()
    theirs.norm(dim=-1).sin().sum().backward()
    assert (found.grad - expected.grad).abs().max() < 30 * tolerance
    assert (box.grad - box_expected.grad).abs().max() < 300 * tolerance
    assert expected.grad.abs().max() > 0.1


# --- overflow -----------------------------------------------------------------------------------


def test_overflow_keeps_the_true_count_and_indices_in_bounds():
    structure = water_box()
    full, short = build(structure, 3.7, 64), build(structure, 3.7, 10)
    assert not full.overflow
    assert short.overflow
    assert torch.equal(short.count, full.count)
    assert short.count.max() > 10
    assert ((short.neighbors >= 0) & (short.neighbors <= 24)).all()
    assert ((short.reverse >= 0) & (short.reverse < 240)).all()
    most = int(full.count.max())
    with pytest.raises(ValueError, match=f"10 slots per atom, .* are {most}; build it again"):
        short.to_edges()
    assert not build(structure, 3.7, most).overflow
    assert build(structure, 3.7, most - 1).overflow


def test_images_that_do_not_suffice_are_an_overflow():
    structure = random_system(CELLS["triclinic"], (True, True, False), 3, seed=4)
    images = image_counts(structure.cell, structure.pbc, 6.0)
    assert images[2] == 0
    assert not build(structure, 6.0, images=images).overflow
    for a in range(2):
        fewer = [k - (b == a) for b, k in enumerate(images)]
        assert build(structure, 6.0, images=tuple(fewer)).overflow
    # more are not wrong
    more = build(structure, 6.0, images=(images[0] + 1, images[1], 1)).to_edges()
    assert same_edges(more, vesin_list(structure, 6.0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_an_overflow(value):
    structure = water_box()
    positions = structure.positions.clone()
    positions[5, 1] = value
    found = build(replace(structure, positions=positions), 3.0, images=(1, 1, 1))
    assert found.overflow
    assert ((found.neighbors >= 0) & (found.neighbors <= 24)).all()
    cell = structure.cell.clone()
    cell[0, 1, 1] = value
    assert build(replace(structure, cell=cell), 3.0, images=(1, 1, 1)).overflow


def test_bad_arguments():
    for options, message in (
        ({"backend": "cupy"}, "`backend` must be"),
        ({"method": "grid"}, "`method` must be"),
        ({"capacity": 0}, "at least one slot per atom, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build(one_atom(), 3.0, **options)
    with pytest.raises(ValueError, match="`cutoff` must be a positive number of Å, got nan"):
        build(one_atom(), float("nan"))
    flat = random_system(CELLS["dependent"], (True, True, False), 2, seed=0)
    with pytest.raises(InvalidStructureError, match="must be finite and linearly independent"):
        build(flat, 3.0)


# --- fixed shapes -------------------------------------------------------------------------------


#: Operations for whose result the host waits.
WAITING = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select"}


def operations(run):
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        run()
    return {event.name for event in profile.function_events}


def test_nothing_depends_on_the_data():
    structure = System.concatenate([STRUCTURES[k]() for k in ("slab-9", "molecule-4")])
    images = image_counts(structure.cell, structure.pbc, 3.2)

    def run():
        found = build(structure, 3.2, 40, images=images)
        found.vectors(structure.positions, structure.cell, structure.system_index)
        return found

    used = operations(run)
    assert len(used) > 20
    assert not used & WAITING
    # controls
    assert "aten::item" in operations(lambda: bool(run().overflow))
    assert "aten::nonzero" in operations(lambda: run().neighbors[run().occupied])


# --- providers ----------------------------------------------------------------------------------


def test_providers_are_named_or_refused():
    structure = water_box()
    assert same_edges(neighbor_list(structure, 3.0, backend="vesin"), neighbor_list(structure, 3.0))
    with pytest.raises(ValueError, match="`backend` must be 'auto', 'vesin'"):
        neighbor_list(structure, 3.0, backend="ase")
    with pytest.raises(ValueError, match="Triton kernels cannot be used: "):
        neighbor_list(structure, 3.0, backend="triton")


def with_torch(monkeypatch):
    """Let the reference take the place of the Triton kernels; returns the capacities asked for."""
    asked = []

    def build_with_torch(*arguments, capacity, images, backend):
        assert backend == "triton"
        asked.append(capacity)
        return neighbor_matrix(*arguments, capacity=capacity, images=images, backend="reference")

    monkeypatch.setattr(device, "neighbor_matrix", build_with_torch)
    monkeypatch.setattr(device, "MOST_SLOTS", 500)
    monkeypatch.setattr(device.matrix_operation, "unsuited", lambda tensor: None)
    return asked


def test_capacity_grows_as_needed(monkeypatch):
    asked = with_torch(monkeypatch)
    structure = random_system(CELLS["triclinic"], (True,) * 3, 3, seed=1)
    edges = neighbor_list(structure, 7.0, backend="triton")
    assert same_edges(edges, vesin_list(structure, 7.0))
    assert asked[0] == device.FIRST_CAPACITY
    assert len(asked) == 2
    assert asked[1] % device.CAPACITY_STEP == 0
    positions = structure.positions.clone()
    positions[1] = torch.nan
    with pytest.raises(InvalidStructureError, match="atom 1 is at"):
        neighbor_list(replace(structure, positions=positions), 6.0, backend="triton")


def test_kernels_in_force_build_the_list(monkeypatch):
    asked = with_torch(monkeypatch)
    structure = water_box()
    expected = vesin_list(structure, 3.0)
    assert same_edges(neighbor_list(structure, 3.0), expected)
    assert asked == []
    with using_kernels("triton") as selection:
        assert same_edges(neighbor_list(structure, 3.0), expected)
    assert len(asked) == 1
    assert list(selection.used) == ["neighbor list in Triton (tiles)"]
    with selecting(Selection("triton", excluded=frozenset(selection.used))):
        assert same_edges(neighbor_list(structure, 3.0), expected)
    assert len(asked) == 1


def test_more_neighbors_than_the_kernels_take(monkeypatch, caplog):
    asked = with_torch(monkeypatch)
    structure = random_system(CELLS["triclinic"], (True,) * 3, 1, seed=1)
    with caplog.at_level(logging.INFO, logger="pet_calc"), using_kernels("triton") as selection:
        assert same_edges(neighbor_list(structure, 20.0), vesin_list(structure, 20.0))
        # not noted, as the kernels have built no list
        assert selection.used == {}
        assert same_edges(neighbor_list(structure, 9.0), vesin_list(structure, 9.0))
        assert len(selection.used) == 1
    assert max(asked) < 500
    assert not caplog.records
    with pytest.raises(ValueError, match="cannot be used: they take at most 500 slots per atom"):
        neighbor_list(structure, 20.0, backend="triton")


def permute_shifts(edges):
    return replace(edges, cell_shifts=edges.cell_shifts[:, [1, 0, 2]])


def drop_a_pair(edges):
    keep = torch.ones(edges.n_edges, dtype=torch.bool)
    keep[[0, int(edges.reverse_edge[0])]] = False
    return edges.select(keep)


def test_lists_are_compared():
    structure = water_box()
    edges = vesin_list(structure, 3.0)
    assert device.difference(structure, 3.0, edges, edges) is None
    assert "the reference has" in device.difference(structure, 3.0, drop_a_pair(edges), edges)
    assert device.difference(structure, 3.0, permute_shifts(edges), edges) is not None


def test_pairs_within_rounding_of_the_cutoff_do_not_count_as_different():
    pair = system([[0.0, 0, 0], [0, 0, 3.0]], [1, 1])
    inside = vesin_list(pair, 3.0 + 1e-14)
    assert inside.n_edges == 2
    assert device.difference(pair, 3.0, inside, vesin_list(pair, 3.0)) is None
    far = system([[0.0, 0, 0], [0, 0, 3.05]], [1, 1])
    assert "beyond 3.0" in device.difference(far, 3.0, vesin_list(far, 3.1), vesin_list(far, 3.0))


def test_devices_without_kernels_are_left_alone(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with using_kernels("triton") as selection:
        assert same_edges(neighbor_list(water_box(), 3.0), vesin_list(water_box(), 3.0))
    assert selection.used == {}


# --- nvalchemi-toolkit-ops ----------------------------------------------------------------------


def arrays_of(structure, cutoff, capacity, seed=0):
    """What the package returns for wrapped positions, by its definition: rows in any order."""
    reciprocal = reciprocal_vectors(structure.cell, structure.pbc)
    arguments = (structure.cell, structure.pbc, structure.system_index)
    x, wrap = wrapped(structure.positions, *arguments, reciprocal)
    edges = vesin_list(replace(structure, positions=x), cutoff)
    order = np.random.default_rng(seed).permutation(edges.n_edges)
    n = structure.n_atoms
    neighbors = torch.full((n, capacity), n, dtype=torch.int32)
    shifts = torch.zeros(n, capacity, 3, dtype=torch.int32)
    count = torch.zeros(n, dtype=torch.int32)
    for e in order:
        i, j = edges.edge_index[:, e].tolist()
        k = int(count[i])
        if k < capacity:
            neighbors[i, k] = j
            shifts[i, k] = edges.cell_shifts[e]
        count[i] += 1
    return neighbors, count, shifts, x, wrap


def converted(structure, cutoff, capacity, radius):
    images = image_counts(structure.cell, structure.pbc, cutoff)
    arrays = arrays_of(structure, radius, capacity)
    reciprocal = reciprocal_vectors(structure.cell, structure.pbc)
    broken = unsearchable(
        structure.positions, structure.cell, structure.pbc, reciprocal, cutoff, images
    )
    box, index = structure.cell, structure.system_index
    return matrix_from_arrays(*arrays, box, index, cutoff, images, broken)


def test_arrays_of_nvalchemi_become_the_same_list():
    parts = [make() for make in STRUCTURES.values()]
    far = replace(parts[0], positions=parts[0].positions + torch.tensor([50.0, -70.0, 9.0]))
    batch = System.concatenate([*parts, far])
    # its radius is larger: what lies between is sorted out
    found, expected = converted(batch, 3.7, 64, 3.9), build(batch, 3.7, 64)
    for name in ("neighbors", "shifts", "count", "reverse", "overflow"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert converted(batch, 3.7, 8, 3.7).overflow


def test_nvalchemi_itself():
    pytest.importorskip("nvalchemiops", reason="nvalchemi-toolkit-ops is not installed")
    batch = System.concatenate([make() for make in STRUCTURES.values()])
    for structure in (STRUCTURES["slab-9"](), batch):
        for cutoff in (3.7, 6.0):
            found = neighbor_list(structure, cutoff, backend="nvalchemi")
            assert same_edges(found, vesin_list(structure, cutoff))


def test_nvalchemi_is_optional(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvalchemiops", None)
    monkeypatch.setitem(__import__("sys").modules, "nvalchemiops.torch.neighbors", None)
    with pytest.raises(MissingDependencyError, match=r"pet-calc\[nvalchemi\]"):
        neighbor_list(water_box(), 3.0, backend="nvalchemi")


def test_keys_without_a_partner_point_at_themselves():
    keys = torch.tensor([[1], [EMPTY]])
    wrap = torch.zeros(2, 3, dtype=torch.int32)
    found = matrix_from_keys(
        keys, torch.ones(2, dtype=torch.int32), wrap, torch.zeros(1, 3).long(), torch.tensor(False)
    )
    assert found.neighbors.tolist() == [[1], [2]]
    assert found.reverse.tolist() == [[0], [1]]
