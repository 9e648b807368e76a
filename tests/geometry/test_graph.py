"""Edges, their vectors, and the padded layout."""

import itertools

import numpy as np
import pytest
import torch
from contracts.structures import STRUCTURES, dense_random, slab, water_box
from hypothesis import given
from hypothesis import strategies as st

from pet_calc.geometry import Edges, NodeEdgeLayout, System, edge_vectors, node_edge_layout
from pet_calc.geometry.graph import bucket_boundaries
from pet_calc.neighbors import neighbor_list


def rows(edges: Edges) -> list[tuple[int, ...]]:
    return [
        (i, j, *s)
        for i, j, s in zip(*edges.edge_index.tolist(), edges.cell_shifts.tolist(), strict=True)
    ]


def assert_reverse_edges(edges: Edges) -> None:
    table = rows(edges)
    for (i, j, a, b, c), back in zip(table, edges.reverse_edge.tolist(), strict=True):
        assert table[back] == (j, i, -a, -b, -c)


def random_edges(degrees: list[int], rng: np.random.Generator) -> tuple[Edges, int]:
    """A random multigraph of about these degrees, as a list sorted by center."""
    stubs = np.repeat(np.arange(len(degrees)), degrees)
    rng.shuffle(stubs)
    i, j = stubs[: len(stubs) // 2 * 2].reshape(-1, 2).T
    n = len(i)
    center, neighbor = np.concatenate([i, j]), np.concatenate([j, i])
    partner = np.concatenate([np.arange(n, 2 * n), np.arange(n)])
    order = np.argsort(center, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(2 * n)
    return (
        Edges(
            torch.from_numpy(np.stack([center[order], neighbor[order]])),
            torch.zeros(2 * n, 3, dtype=torch.int64),
            torch.from_numpy(rank[partner[order]]),
        ),
        len(degrees),
    )


# --- edges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURES)
def test_selected_edges_keep_their_reverse(name: str) -> None:
    structure = STRUCTURES[name]()
    edges = neighbor_list(structure, 5.0)
    r = edge_vectors(structure, edges).norm(dim=1)
    chosen = edges.select(r < 3.1)
    assert_reverse_edges(chosen)
    assert sorted(rows(chosen)) == sorted(rows(neighbor_list(structure, 3.1)))
    nothing = edges.select(r < 0)
    assert nothing.n_edges == 0
    assert nothing.edge_index.shape == (2, 0)


def test_concatenated_edges_are_those_of_the_batch() -> None:
    parts = [water_box(), slab(), dense_random()]
    joined = Edges.concatenate([neighbor_list(p, 4.0) for p in parts], [p.n_atoms for p in parts])
    assert_reverse_edges(joined)
    assert sorted(rows(joined)) == sorted(rows(neighbor_list(System.concatenate(parts), 4.0)))


def test_vectors_point_from_center_to_image() -> None:
    batch = System.concatenate([dense_random(), slab()])
    edges = neighbor_list(batch, 4.0)
    vectors = edge_vectors(batch, edges)
    for e in range(0, edges.n_edges, 17):
        i, j = edges.edge_index[:, e]
        image = batch.positions[j] + sum(
            edges.cell_shifts[e, k] * batch.cell[batch.system_index[i], k] for k in range(3)
        )
        assert torch.allclose(vectors[e], image - batch.positions[i], rtol=0, atol=1e-13)
    assert torch.allclose(vectors[edges.reverse_edge], -vectors, rtol=0, atol=1e-13)


# --- layout ------------------------------------------------------------------------------------


def assert_layout(layout: NodeEdgeLayout, edges: Edges, n_atoms: int) -> None:
    slots = layout.slot_edge.numpy()
    mask = layout.slot_mask.numpy()
    reverse = layout.reverse_slot.numpy()
    assert np.array_equal(mask, slots < edges.n_edges)
    assert sorted(slots[mask]) == list(range(edges.n_edges)), "every edge has one slot"
    assert sorted(layout.atom_order.tolist()) == list(range(n_atoms)), "every atom has one row"
    assert np.array_equal(reverse[reverse], np.arange(len(slots))), "reversal is an involution"
    assert np.array_equal(reverse[~mask], np.flatnonzero(~mask)), "padding points at itself"
    assert np.array_equal(slots[reverse[mask]], edges.reverse_edge.numpy()[slots[mask]])
    atom = slot = 0
    for bucket in layout.buckets:
        assert bucket.atoms == slice(atom, atom + bucket.n_atoms)
        assert bucket.slots == slice(slot, slot + bucket.n_atoms * bucket.width)
        atom, slot = bucket.atoms.stop, bucket.slots.stop
        held = slots[bucket.slots].reshape(bucket.n_atoms, bucket.width)
        for row, owner in zip(held, layout.atom_order[bucket.atoms].tolist(), strict=True):
            assert (edges.edge_index[0].numpy()[row[row < edges.n_edges]] == owner).all()
    assert (atom, slot) == (n_atoms, len(slots))
    widths = [b.width for b in layout.buckets]
    assert widths == sorted(set(widths))
    expected = 1 - edges.n_edges / len(slots) if len(slots) else 0.0
    assert layout.padding_fraction == pytest.approx(expected, abs=1e-15)


@given(
    degrees=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    seed=st.integers(0, 99),
    max_padding=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_layout_holds_every_edge_once(degrees: list[int], seed: int, max_padding: float) -> None:
    edges, n = random_edges(degrees, np.random.default_rng(seed))
    layout = node_edge_layout(edges, n, max_padding=max_padding, bucket_cost=0)
    assert_layout(layout, edges, n)
    assert layout.padding_fraction <= max_padding or len(layout.buckets) == 16


@pytest.mark.parametrize("name", STRUCTURES)
def test_layout_of_structures(name: str) -> None:
    structure = STRUCTURES[name]()
    edges = neighbor_list(structure, 4.5)
    layout = node_edge_layout(edges, structure.n_atoms, bucket_cost=0)
    assert_layout(layout, edges, structure.n_atoms)
    assert layout.padding_fraction <= 0.05
    chosen = node_edge_layout(edges, structure.n_atoms)
    assert_layout(chosen, edges, structure.n_atoms)
    assert len(chosen.buckets) <= len(layout.buckets)


@pytest.mark.parametrize("n_atoms", [1, 64, 1000, 20_000])
@pytest.mark.parametrize("mean", [0.0, 1.0, 12.0, 38.0, 150.0])
def test_padding_of_liquids_is_at_most_five_percent(n_atoms: int, mean: float) -> None:
    """Coordination numbers of a liquid are about Poisson distributed, surfaces have fewer."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(mean, n_atoms)
    counts[: n_atoms // 20] //= 2
    counts[-(n_atoms // 50 + 1) :] = 0
    counts = np.sort(counts)
    ends = bucket_boundaries(counts, 0.05)
    assert ends[-1] == n_atoms
    assert len(ends) <= 16
    slots = sum((end - begin) * counts[end - 1] for begin, end in itertools.pairwise([0, *ends]))
    assert slots == 0 or 1 - counts.sum() / slots <= 0.05


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=9).map(sorted),
    max_padding=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
)
def test_bucket_boundaries_are_the_best(counts: list[int], max_padding: float) -> None:
    """Brute force over all cuts: the fewest buckets within the bound, then the least padding."""
    n, edges = len(counts), sum(counts)

    def n_slots(ends: tuple[int, ...]) -> int:
        return sum((e - b) * counts[e - 1] for b, e in itertools.pairwise((0, *ends)))

    found = tuple(bucket_boundaries(np.array(counts), max_padding))
    assert found[-1] == n
    assert list(found) == sorted(set(found))
    for k in range(1, n + 1):
        best = min(n_slots((*cut, n)) for cut in itertools.combinations(range(1, n), k - 1))
        if edges >= (1 - max_padding) * best:
            break
    assert len(found) == k
    assert n_slots(found) == best


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=9).map(sorted),
    bucket_cost=st.integers(0, 60),
)
def test_a_bucket_more_has_to_save_its_cost(counts: list[int], bucket_cost: int) -> None:
    """Brute force over all cuts: the least sum of slots and costs of buckets."""
    n = len(counts)

    def cost(ends: tuple[int, ...]) -> int:
        slots = sum((e - b) * counts[e - 1] for b, e in itertools.pairwise((0, *ends)))
        return slots + bucket_cost * len(ends)

    cuts = [
        (*cut, n) for k in range(1, n + 1) for cut in itertools.combinations(range(1, n), k - 1)
    ]
    found = bucket_boundaries(np.array(counts), 0.0, bucket_cost=bucket_cost)
    assert cost(tuple(found)) == min(map(cost, cuts))


def test_bucket_number_is_bounded() -> None:
    counts = np.unique(np.logspace(0, 4, 200).astype(int))
    assert len(bucket_boundaries(counts, 0.0)) == 16
    assert len(bucket_boundaries(counts, 0.0, max_buckets=3)) == 3
