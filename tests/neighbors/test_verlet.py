"""The Verlet skin: never another list than a fresh one, and rarely a new one."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.energy_model import permuted
from contracts.structures import water_box

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import Edges, System
from pet_calc.neighbors import VerletState, neighbor_list, update_verlet
from pet_calc.neighbors.api import edges_from_half_list

CUTOFF, SKIN = 3.5, 1.0


def as_set(edges: Edges) -> set[tuple[int, ...]]:
    return {
        (i, j, *s)
        for i, j, s in zip(*edges.edge_index.tolist(), edges.cell_shifts.tolist(), strict=True)
    }


def trajectory(n_steps: int = 150) -> Iterator[System]:
    """A random walk with drift, and all that can happen to a structure on the way."""
    rng = np.random.default_rng(3)
    now = water_box()
    drift = 0.03 * rng.standard_normal((48, 3))
    for step in range(n_steps):
        noise = 0.02 * rng.standard_normal((now.n_atoms, 3))
        kick = torch.from_numpy(drift[: now.n_atoms] + noise)
        now = replace(now, positions=now.positions + kick)
        if step == 40:  # wrap into the cell
            wrapped = (now.positions @ torch.linalg.inv(now.cell[0])).remainder(1.0) @ now.cell[0]
            now = replace(now, positions=wrapped)
        if step == 60:  # strain the cell, the atoms with it
            now = replace(now, cell=1.02 * now.cell, positions=1.02 * now.positions)
        if step == 70:  # the cell alone
            now = replace(now, cell=now.cell * torch.tensor([1.0, 1.0, 0.98])[:, None])
        if step == 80:
            now = replace(now, numbers=now.numbers.flip(0))
        if step == 100:
            now = permuted(now, torch.arange(20))
        if step == 120:
            now = replace(now, pbc=torch.tensor([[True, False, True]]))
        if step == 130:
            now = System.concatenate([now, now])
        yield now


def mismatches(skin_shown: float) -> tuple[int, int, int]:
    """Steps with another edge set than a fresh list, builds, and steps."""
    state: VerletState | None = None
    wrong = steps = 0
    for now in trajectory():
        state, edges = update_verlet(state, now, cutoff=CUTOFF, skin=SKIN)
        wrong += as_set(edges) != as_set(neighbor_list(now, CUTOFF))
        steps += 1
        n_builds = state.n_builds
        if skin_shown != SKIN:  # a criterion of skin_shown / 2 on a list of cutoff + SKIN
            state = Credulous(**(vars(state) | {"n_builds": n_builds}))
    assert state is not None
    return wrong, n_builds, steps


class Credulous(VerletState):
    """Believes that atoms may move by the whole skin, instead of half of it."""

    def covers(self, system: System) -> bool:
        return replace(VerletState(**vars(self)), skin=2 * self.skin).covers(system)


def test_edges_are_those_of_a_fresh_list() -> None:
    wrong, n_builds, steps = mismatches(SKIN)
    assert wrong == 0
    assert 7 <= n_builds < steps / 3


def test_too_lax_a_criterion_is_noticed() -> None:
    wrong, _, _ = mismatches(2 * SKIN)
    assert wrong > 0


def test_reverse_edges_survive_the_skin() -> None:
    state, _ = update_verlet(None, water_box(), cutoff=CUTOFF, skin=SKIN)
    _, edges = update_verlet(state, water_box(), cutoff=CUTOFF, skin=SKIN)
    back = edges.edge_index[:, edges.reverse_edge]
    assert torch.equal(back, edges.edge_index.flip(0))
    assert torch.equal(edges.cell_shifts[edges.reverse_edge], -edges.cell_shifts)


def test_skin_of_zero_follows_every_change() -> None:
    state, _ = update_verlet(None, water_box(), cutoff=CUTOFF, skin=0.0)
    same, _ = update_verlet(state, water_box(), cutoff=CUTOFF, skin=0.0)
    assert same is state
    new, _ = update_verlet(state, water_box(seed=1), cutoff=CUTOFF, skin=0.0)
    assert new.n_builds == 2


@pytest.mark.parametrize("change", [{"cutoff": 3.6}, {"skin": 0.9}])
def test_other_parameters_need_another_list(change: dict[str, float]) -> None:
    state, _ = update_verlet(None, water_box(), cutoff=CUTOFF, skin=SKIN)
    new, edges = update_verlet(state, water_box(), **({"cutoff": CUTOFF, "skin": SKIN} | change))
    assert new.n_builds == 2
    assert as_set(edges) == as_set(neighbor_list(water_box(), change.get("cutoff", CUTOFF)))


def test_state_ignores_changes_made_in_place() -> None:
    """A caller that moves its atoms in place must not move those of the stored list too."""
    water = water_box()
    state, _ = update_verlet(None, water, cutoff=CUTOFF, skin=SKIN)
    water.positions.add_(torch.linspace(0, 2, 24, dtype=torch.float64)[:, None])
    state, edges = update_verlet(state, water, cutoff=CUTOFF, skin=SKIN)
    assert as_set(edges) == as_set(neighbor_list(water, CUTOFF))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`skin` must not be negative, got -0\.1 Å"):
        update_verlet(None, water_box(), cutoff=CUTOFF, skin=-0.1)
    state, _ = update_verlet(None, water_box(), cutoff=CUTOFF, skin=SKIN)
    lost = replace(water_box(), positions=torch.full((24, 3), torch.nan, dtype=torch.float64))
    with pytest.raises(InvalidStructureError, match="atom 0 is at"):
        update_verlet(state, lost, cutoff=CUTOFF, skin=SKIN)


def test_order_of_edges_does_not_depend_on_the_list():
    """Neither on when it was built nor with what skin: sums over neighbors round alike."""
    states: dict[float, VerletState | None] = {0.3: None, 1.0: None}
    for system in trajectory(60):
        expected = neighbor_list(system, CUTOFF)
        for skin, state in states.items():
            states[skin], edges = update_verlet(state, system, cutoff=CUTOFF, skin=skin)
            assert torch.equal(edges.edge_index, expected.edge_index)
            assert torch.equal(edges.cell_shifts, expected.cell_shifts)
            assert torch.equal(edges.reverse_edge, expected.reverse_edge)


def test_edges_are_sorted_also_between_far_images():
    rng = np.random.default_rng(0)
    for reach in (0, 3, 10**6):  # of the last there are too many in between to count
        i, j = rng.integers(0, 50, size=(2, 400))
        shifts = rng.integers(-reach, reach + 1, size=(400, 3))
        edges = edges_from_half_list(i, j, shifts)
        rows = torch.cat([edges.edge_index.T, edges.cell_shifts], dim=1)
        listed = np.column_stack([i, j, shifts]).tolist()
        listed += np.column_stack([j, i, -shifts]).tolist()
        assert rows.tolist() == sorted(listed)
        back = rows[edges.reverse_edge]
        assert torch.equal(back[:, :2], rows[:, [1, 0]])
        assert torch.equal(back[:, 2:], -rows[:, 2:])
        assert torch.equal(edges.reverse_edge[edges.reverse_edge], torch.arange(800))
