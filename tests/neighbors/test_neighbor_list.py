"""The neighbor list against brute force, ASE and matscipy; refusals of bad input."""

import itertools
from dataclasses import replace

import ase
import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list as ase_neighbor_list
from contracts.structures import STRUCTURES, one_atom, system, water_box
from hypothesis import given, settings
from hypothesis import strategies as st
from neighbors.brute_force import brute_force_edges

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.neighbors import neighbor_list
from pet_calc.neighbors.kd_tree import kd_tree_half_list
from pet_calc.neighbors.vesin_cpu import complete_cell, vesin_suits

CELLS = {
    "cubic": 4.0 * np.eye(3),
    "triclinic": np.array([[3.9, 0.3, -0.2], [1.1, 4.2, 0.4], [-0.9, 0.8, 3.6]]),
    "left-handed": np.array([[0.2, 4.1, 0.3], [4.4, 0.2, -0.9], [0.7, 1.1, 4.2]]),
    "skewed": np.array([[3.0, 0.0, 0.0], [7.4, 2.8, 0.0], [-5.1, 6.3, 3.1]]),
    "flat": np.diag([9.0, 1.6, 5.0]),
}
MIXES = list(itertools.product((False, True), repeat=3))


def rows(edges: Edges) -> list[tuple[int, ...]]:
    return [
        (i, j, *s)
        for i, j, s in zip(*edges.edge_index.tolist(), edges.cell_shifts.tolist(), strict=True)
    ]


def assert_same_list(structure: System, cutoff: float) -> Edges:
    """Compare with brute force, and check order, reverse edges and distances."""
    edges = neighbor_list(structure, cutoff)
    table = rows(edges)
    assert sorted(table) == rows(brute_force_edges(structure, cutoff))
    assert edges.edge_index[0].tolist() == sorted(edges.edge_index[0].tolist())
    for (i, j, a, b, c), back in zip(table, edges.reverse_edge.tolist(), strict=True):
        assert table[back] == (j, i, -a, -b, -c)
    if edges.n_edges:
        assert edge_vectors(structure, edges).norm(dim=1).max() < cutoff
    return edges


def random_system(
    cell: np.ndarray, pbc: tuple[bool, ...], n_atoms: int, seed: int, spread: float = 1.0
) -> System:
    rng = np.random.default_rng(seed)
    fractional = 0.5 + spread * (rng.random((n_atoms, 3)) - 0.5)
    return system(fractional @ cell, rng.integers(1, 9, n_atoms), cell, pbc)


@pytest.mark.parametrize("pbc", MIXES, ids=lambda m: "".join("FT"[p] for p in m))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cutoff", [1.9, 4.6])
def test_equals_brute_force(cell: str, pbc: tuple[bool, ...], cutoff: float) -> None:
    assert_same_list(random_system(CELLS[cell], pbc, 6, seed=0, spread=1.8), cutoff)


@pytest.mark.parametrize("cell", ["cubic", "triclinic", "left-handed"])
def test_cutoff_of_three_cells(cell: str) -> None:
    edges = assert_same_list(random_system(CELLS[cell], (True,) * 3, 2, seed=1), 12.0)
    assert edges.cell_shifts.abs().max() >= 3
    assert (edges.edge_index[0] == edges.edge_index[1]).any(), "an atom sees its own images"


@pytest.mark.parametrize("cell", ["cubic", "triclinic", "left-handed", "skewed"])
def test_atoms_may_be_many_cells_away(cell: str) -> None:
    near = random_system(CELLS[cell], (True,) * 3, 5, seed=2)
    shifts = torch.tensor([[0, 0, 0], [7, -3, 2], [-40, 11, 0], [0, 0, 25], [1, 1, -1]])
    far = replace(near, positions=near.positions + shifts.double() @ near.cell[0])
    back = {
        (i, j, *(torch.tensor(s) + shifts[j] - shifts[i]).tolist())
        for i, j, *s in rows(neighbor_list(far, 4.0))
    }
    assert back == set(rows(neighbor_list(near, 4.0)))
    assert len(back) > 0


@given(
    matrix=st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    pbc=st.sampled_from(MIXES),
    n_atoms=st.integers(1, 5),
    cutoff=st.floats(0.5, 4.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=60)
def test_equals_brute_force_on_random_cells(
    matrix: list[float], pbc: tuple[bool, ...], n_atoms: int, cutoff: float, seed: int
) -> None:
    cell = 3.5 * np.eye(3) + 1.3 * np.reshape(matrix, (3, 3))
    if np.abs(np.linalg.det(cell)) < 10:
        cell = 3.5 * np.eye(3)
    assert_same_list(random_system(cell, pbc, n_atoms, seed, spread=2.5), cutoff)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("library", ["ase", "matscipy"])
def test_equals_other_libraries(name: str, library: str) -> None:
    structure = STRUCTURES[name]()
    atoms = ase.Atoms(
        structure.numbers.numpy(),
        structure.positions.numpy(),
        cell=structure.cell[0].numpy(),
        pbc=structure.pbc[0].numpy(),
    )
    if library == "ase":
        i, j, shifts = ase_neighbor_list("ijS", atoms, 4.5)
    else:
        matscipy = pytest.importorskip("matscipy.neighbors")
        if not atoms.cell.rank:
            atoms.cell = 30 * np.eye(3)  # it wants a box
        if len(atoms) == 1 and not atoms.pbc.any():
            pytest.skip("matscipy refuses a free atom")
        i, j, shifts = matscipy.neighbor_list("ijS", atoms, 4.5)
    theirs = sorted((int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, shifts, strict=True))
    assert sorted(rows(neighbor_list(structure, 4.5))) == theirs


def test_batch_is_the_concatenation_of_its_systems() -> None:
    parts = [make() for make in STRUCTURES.values()]
    offsets = np.cumsum([0, *(p.n_atoms for p in parts)])
    expected = [
        (i + o, j + o, *s)
        for part, o in zip(parts, offsets.tolist(), strict=False)
        for i, j, *s in rows(neighbor_list(part, 3.7))
    ]
    batch = System.concatenate(parts)
    edges = assert_same_list(batch, 3.7)
    assert sorted(rows(edges)) == sorted(expected)
    i, j = edges.edge_index
    assert torch.equal(batch.system_index[i], batch.system_index[j])


@pytest.mark.parametrize(
    "structure", [one_atom(), system([[0.0, 0, 0], [0, 0, 9]], [1, 1])], ids=["one-atom", "far"]
)
def test_no_pairs(structure: System) -> None:
    edges = assert_same_list(structure, 5.0)
    assert edges.n_edges == 0
    assert edges.edge_index.shape == (2, 0)
    assert edges.cell_shifts.shape == (0, 3)
    assert edges.edge_index.dtype == edges.reverse_edge.dtype == torch.int64


def test_pairs_at_the_cutoff_are_left_out() -> None:
    pair = system([[0.0, 0, 0], [0, 0, 3.0]], [1, 1])
    assert neighbor_list(pair, 3.0).n_edges == 0
    assert neighbor_list(pair, 3.0 + 1e-12).n_edges == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_positions_that_are_not_finite_are_refused(value: float) -> None:
    water = water_box()
    positions = water.positions.clone()
    positions[[5, 9], [1, 0]] = value
    with pytest.raises(InvalidStructureError, match=r"atom 5 is at .*\(2 such atom\(s\)\)"):
        neighbor_list(replace(water, positions=positions), 3.0)


def test_cell_that_is_not_finite_is_refused() -> None:
    water = water_box()
    with pytest.raises(InvalidStructureError, match="cell must be finite"):
        neighbor_list(replace(water, cell=water.cell * torch.nan), 3.0)


@pytest.mark.parametrize("pbc", [m for m in MIXES if any(m)])
def test_periodic_direction_without_a_vector_is_refused(pbc: tuple[bool, ...]) -> None:
    with pytest.raises(InvalidStructureError, match="zero vector; set the cell or turn the"):
        neighbor_list(system([[0.0, 0, 0]], [1], np.zeros((3, 3)), pbc), 3.0)


def test_dependent_lattice_vectors_are_refused_only_if_periodic() -> None:
    cell = np.array([[3.0, 0, 0], [0, 3, 0], [3, 3, 0]])
    with pytest.raises(InvalidStructureError, match="system 1 are linearly dependent"):
        neighbor_list(System.concatenate([water_box(), system([[0.0, 0, 0]], [1], cell)]), 3.0)
    assert_same_list(system([[0.0, 0, 0]], [1], cell, (True, True, False)), 4.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_cutoff_is_refused(cutoff: float) -> None:
    with pytest.raises(ValueError, match=f"`cutoff` must be a positive number of Å, got {cutoff}"):
        neighbor_list(water_box(), cutoff)


# --- boxes that are mostly empty ----------------------------------------------------------------


def half_rows(found: tuple[np.ndarray, ...]) -> list[tuple[int, ...]]:
    return [(int(i), int(j), *s) for i, j, s in zip(*(x.tolist() for x in found), strict=True)]


@pytest.mark.parametrize("pbc", MIXES, ids=lambda m: "".join("FT"[p] for p in m))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cutoff", [1.9, 4.6])
def test_kd_tree_equals_brute_force(cell: str, pbc: tuple[bool, ...], cutoff: float) -> None:
    structure = random_system(CELLS[cell], pbc, 6, seed=0, spread=1.8)
    box = complete_cell(CELLS[cell], np.array(pbc))
    half = half_rows(kd_tree_half_list(structure.positions.numpy(), box, np.array(pbc), cutoff))
    both = half + [(j, i, -a, -b, -c) for i, j, a, b, c in half]
    assert len(set(both)) == len(both), "each pair once"
    assert sorted(both) == rows(brute_force_edges(structure, cutoff))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("pbc", [(False,) * 3, (True,) * 3, (True, False, False)])
@pytest.mark.parametrize("length", [3e5, 1e7, 1e12])
def test_two_molecules_very_far_apart(axis: int, pbc: tuple[bool, ...], length: float) -> None:
    """vesin alone divides by zero here, which ends the process."""
    molecule = np.array([[0.0, 0, 0], [0.9, 0, 0], [0, 0.9, 0.1]])
    far = np.zeros(3)
    far[axis] = 0.9 * length
    cell = 8.0 * np.eye(3)
    cell[axis, axis] = length
    positions = np.concatenate([molecule, molecule + far])
    assert not vesin_suits(positions, complete_cell(cell, np.array(pbc)), np.array(pbc), 3.0)
    edges = neighbor_list(system(positions, [8, 1, 1, 8, 1, 1], cell, pbc), 3.0)
    pairs = {(i, j) for i, j, *_ in rows(edges)}
    assert pairs == {(i, j) for i in range(6) for j in range(6) if i != j and i // 3 == j // 3}
    assert edges.n_edges == 12


@pytest.mark.parametrize("extent", [(480, 480, 1), (45, 60, 80), (30, 30, 30)])
def test_both_lists_agree_beyond_the_largest_grid_of_vesin(extent: tuple[int, ...]) -> None:
    """Where vesin would fail to coarsen its grid, where it does, and where it need not."""
    generator = np.random.default_rng(5)
    positions = generator.random((24_000, 3)) * extent * 1.5
    positions[12_000:] = positions[:12_000] + generator.normal(0, 0.5, (12_000, 3))
    pbc, box = np.zeros(3, dtype=bool), np.eye(3)
    assert vesin_suits(positions, box, pbc, 1.5) == (extent[2] > 1)
    tree = kd_tree_half_list(positions, box, pbc, 1.5)
    assert len(tree[0]) > 5000
    edges = neighbor_list(system(positions, np.ones(24_000, int)), 1.5)
    half = {(i, j) for i, j, *_ in rows(edges) if i < j}
    assert half == set(zip(tree[0].tolist(), tree[1].tolist(), strict=True))
