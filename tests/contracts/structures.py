"""Structures on which the contracts are checked: one of every kind that breaks codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pet_calc.geometry import System

Array = NDArray[np.float64]


def system(
    positions: Array | Sequence[Sequence[float]],
    numbers: Sequence[int] | NDArray[np.int64],
    cell: Array | Sequence[Sequence[float]] | None = None,
    pbc: Sequence[bool] = (True, True, True),
) -> System:
    """A single system from plain arrays; without a cell nothing is periodic."""
    return System.single(
        torch.tensor(np.asarray(positions), dtype=torch.float64).reshape(-1, 3),
        torch.tensor(np.asarray(numbers), dtype=torch.int64),
        None if cell is None else torch.tensor(np.asarray(cell), dtype=torch.float64),
        (False, False, False) if cell is None else pbc,
    )


def random_rotation(rng: np.random.Generator) -> Array:
    """A proper rotation, uniform in SO(3)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return q


def water_box(per_edge: int = 2, seed: int = 0) -> System:
    """Randomly turned molecules on a cubic lattice at 1 g/cm³; ``per_edge**3`` of them."""
    rng = np.random.default_rng(seed)
    spacing = 29.915 ** (1 / 3)  # Å³ of a molecule at 1 g/cm³
    half = np.deg2rad(105.0) / 2
    body = 0.97 * np.array(
        [[0, 0, 0], [np.cos(half), np.sin(half), 0], [np.cos(half), -np.sin(half), 0]]
    )
    sites = spacing * np.array(list(np.ndindex(per_edge, per_edge, per_edge)))
    sites = sites + 0.2 * rng.standard_normal(sites.shape)
    positions = np.concatenate([site + body @ random_rotation(rng).T for site in sites])
    return system(positions, [8, 1, 1] * len(sites), spacing * per_edge * np.eye(3))


def silicon_cell(seed: int = 1) -> System:
    """Two silicon atoms in a sheared primitive cell that is smaller than the cutoff."""
    rng = np.random.default_rng(seed)
    cell = 2.715 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    strain = np.eye(3) + 0.04 * rng.standard_normal((3, 3))
    positions = np.array([[0.0, 0, 0], [1.3575, 1.3575, 1.3575]]) + 0.1 * rng.standard_normal(
        (2, 3)
    )
    return system(positions @ strain, [14, 14], cell @ strain)


def left_handed_cell(seed: int = 2) -> System:
    """Two elements in a skewed cell of negative determinant, atoms partly outside."""
    rng = np.random.default_rng(seed)
    cell = np.array([[0.4, 4.1, 0.3], [4.4, 0.2, -0.9], [0.7, 1.1, 5.2]])
    fractional = np.array([[0.1, 0.2, 0.1], [0.6, 0.7, 1.3], [-0.4, 0.2, 0.6], [0.1, 0.6, -0.4]])
    positions = fractional @ cell + 0.1 * rng.standard_normal((4, 3))
    return system(positions, [14, 8, 8, 1], cell)


def slab(seed: int = 3) -> System:
    """Two layers, periodic in x and y only, with an adsorbed atom."""
    rng = np.random.default_rng(seed)
    flat = 2.6 * np.array(list(np.ndindex(2, 2)), dtype=np.float64)
    layers = [np.column_stack([flat + 1.3 * k, np.full(4, 2.0 * k)]) for k in range(2)]
    positions = np.concatenate([*layers, [[1.0, 1.5, 3.6]]]) + 0.1 * rng.standard_normal((9, 3))
    return system(positions, [14] * 8 + [1], np.diag([5.2, 5.2, 20.0]), (True, True, False))


def molecule() -> System:
    """Hydrogen peroxide: chiral, without a cell."""
    positions = [[0.0, 0.72, 0.0], [0.0, -0.72, 0.0], [0.78, 0.9, 0.5], [-0.78, -0.9, 0.5]]
    return system(positions, [8, 8, 1, 1])


def one_atom() -> System:
    """A free atom."""
    return system([[0.3, -0.2, 0.1]], [8])


def one_atom_crystal() -> System:
    """One atom in a triclinic cell much smaller than the cutoff: only images of itself."""
    return system([[0.1, 0.2, 0.3]], [14], [[2.4, 0.1, 0.0], [0.3, 2.5, -0.1], [0.5, -0.2, 2.3]])


def dense_random(seed: int = 4) -> System:
    """Twelve atoms of three elements at random, at least 1.4 Å apart, in a skewed cell."""
    rng = np.random.default_rng(seed)
    cell = np.array([[5.5, 0.3, 0.0], [-0.8, 5.2, 0.4], [0.5, 0.9, 5.6]])
    found = np.empty((0, 3))
    images = np.array(list(np.ndindex(3, 3, 3))) - 1.0
    while len(found) < 12:
        trial = rng.random(3)
        gaps = (found - trial)[:, None] + images
        if np.linalg.norm(gaps @ cell, axis=-1).min(initial=np.inf) > 1.4:
            found = np.concatenate([found, trial[None]])
    return system(found @ cell, np.tile([1, 8, 14], 4), cell)


STRUCTURES: dict[str, Callable[[], System]] = {
    "water-24": water_box,
    "silicon-2-strained": silicon_cell,
    "left-handed-4": left_handed_cell,
    "slab-9": slab,
    "molecule-4": molecule,
    "one-atom": one_atom,
    "one-atom-crystal": one_atom_crystal,
    "dense-random-12": dense_random,
}
"""Name (with the number of atoms) and maker of each structure; elements 1, 8 and 14."""

PERIODIC = tuple(name for name, make in STRUCTURES.items() if bool(make().pbc.all()))
"""Those with a stress."""
