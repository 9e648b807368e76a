import numpy as np
import pytest
from ase import Atoms

from pet_calc.units import FS
from pet_calc.workflows.observables import unwrap

CELLS = {
    "cubic": np.diag([8.0, 8.0, 8.0]),
    "skewed": np.array([[8.0, 0.0, 0.0], [3.5, 7.5, 0.0], [-2.0, 2.5, 9.0]]),
    "left-handed": np.array([[0.0, 8.0, 0.0], [8.0, 0.0, 0.0], [0.0, 0.0, 8.0]]),
}


def walk(cell, n_frames=200, n_atoms=20, step=0.25, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(size=(n_atoms, 3)) @ cell
    return start + np.concatenate(
        [np.zeros((1, n_atoms, 3)), rng.normal(scale=step, size=(n_frames - 1, n_atoms, 3))]
    ).cumsum(axis=0)


def as_frames(paths, cells, wrap=True, pbc=True):
    frames = [
        Atoms(f"Ar{paths.shape[1]}", positions=x, cell=c, pbc=pbc)
        for x, c in zip(paths, np.broadcast_to(cells, (len(paths), 3, 3)), strict=True)
    ]
    if wrap:
        for atoms in frames:
            atoms.wrap()
    return frames


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_wrapped_walk_is_recovered(cell, wrap):
    paths = walk(cell)
    frames = as_frames(paths, cell, wrap)
    motion = unwrap(frames, 2.0)
    moved = motion.positions - motion.positions[0]
    assert moved == pytest.approx(paths - paths[0], abs=1e-10)
    largest = np.abs(paths - paths[0]).max()
    assert largest > 5.0  # far enough to leave the cell
    assert not motion.species_change
    assert motion.velocities is None


def test_breathing_cell_is_no_diffusion():
    rng = np.random.default_rng(1)
    strain = 1.0 + 0.01 * np.sin(np.arange(400) / 5.0) + 0.003 * rng.normal(size=400)
    cells = strain[:, None, None] * CELLS["skewed"]
    scaled = rng.uniform(size=(30, 3))
    motion = unwrap(as_frames(scaled @ cells, cells))
    assert np.abs(motion.positions - motion.positions[0]).max() < 1e-9


def test_walk_in_a_breathing_cell():
    rng = np.random.default_rng(2)
    cells = (1.0 + 0.01 * np.sin(np.arange(300) / 7.0))[:, None, None] * CELLS["cubic"]
    steps = rng.normal(scale=0.02, size=(300, 25, 3))
    scaled = rng.uniform(size=(25, 3)) + steps.cumsum(axis=0)
    motion = unwrap(as_frames(scaled @ cells, cells))
    expected = np.diff(scaled, axis=0) @ CELLS["cubic"]
    assert np.diff(motion.positions, axis=0) == pytest.approx(expected, abs=0.01 * 0.8)


def test_free_directions_are_not_folded():
    paths = walk(CELLS["cubic"], step=1.5)
    paths[..., :2] = 1.0
    motion = unwrap(as_frames(paths, CELLS["cubic"], wrap=False, pbc=(True, True, False)))
    assert motion.positions == pytest.approx(paths, abs=1e-10)
    slab = [Atoms("Ar20", positions=x, cell=[8, 8, 0], pbc=(1, 1, 0)) for x in paths]
    assert unwrap(slab).positions == pytest.approx(paths, abs=1e-10)


def test_velocities_are_in_angstrom_per_fs():
    frames = as_frames(walk(CELLS["cubic"], n_frames=3, n_atoms=2), CELLS["cubic"])
    for atoms in frames:
        atoms.set_velocities(np.full((2, 3), 0.01 / FS))
    assert unwrap(frames).velocities == pytest.approx(np.full((3, 2, 3), 0.01))


def test_centered_paths_do_not_follow_the_drift():
    paths = walk(CELLS["cubic"], n_atoms=5)
    drift = np.linspace(0, 30, len(paths))[:, None, None]
    still = unwrap(as_frames(paths, CELLS["cubic"])).centered
    moving = unwrap(as_frames(paths + drift, CELLS["cubic"])).centered
    assert moving - moving[0] == pytest.approx(still - still[0], abs=1e-9)


def test_sparse_frames_are_refused():
    frames = as_frames(walk(CELLS["cubic"], step=1.2), CELLS["cubic"])
    with pytest.raises(ValueError, match="too sparse"):
        unwrap(frames)


def test_other_nonsense_is_refused():
    frames = as_frames(walk(CELLS["cubic"], n_frames=3), CELLS["cubic"])
    with pytest.raises(ValueError, match="same atoms in the same order"):
        unwrap([frames[0], frames[1][:-1]])
    with pytest.raises(ValueError, match="at least one structure"):
        unwrap([])
    with pytest.raises(ValueError, match="must be positive"):
        unwrap(frames, 0.0)
    tilted = frames[1].copy()
    tilted.set_cell([[8, 0, 0], [8, 8, 0], [0, 0, 8]])
    with pytest.raises(ValueError, match="change gradually"):
        unwrap([frames[0], tilted])
