"""The operations that map a structure on itself to the precision of its coordinates."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pet_calc.geometry import System
from pet_calc.models.ecse.operations import Operations

_log = logging.getLogger(__name__)

#: Å. Operations are proposed within the first and kept if every atom is met within the second: what
#: is taken for symmetric then changes energies by less than 1e-10 eV.
PROPOSED, EXACT = 1e-5, 1e-11


def operations_of(system: System) -> tuple[Operations, ...]:
    """The point group of each system of a batch; the identity alone where there is no other.

    spglib proposes the operations. Without it (``pip install "pet-calc[phonons]"``) every structure
    counts as unsymmetric, which changes the cost of what uses them and not its results. The same
    holds for structures that are not periodic in three dimensions.
    """
    if find_spec("spglib") is None:
        _log.info(
            "spglib is not installed, so views of a crystal that are equal by symmetry are all "
            'evaluated; pip install "pet-calc[phonons]" to merge them'
        )
    return tuple(one_system(system, k) for k in range(system.n_systems))


def one_system(system: System, k: int) -> Operations:
    """The operations of system `k` of a batch."""
    device = system.positions.device
    here = system.system_index == k
    n_atoms = int(here.sum())
    trivial = Operations.identity(n_atoms, device)
    if n_atoms == 0 or not bool(system.pbc[k].all()) or find_spec("spglib") is None:
        return trivial
    cell = system.cell[k].detach().cpu().double().numpy()
    positions = system.positions[here].detach().cpu().double().numpy()
    numbers = system.numbers[here].cpu().numpy()
    found = group(cell, positions, numbers, proposals(cell, positions, numbers))
    if found is None:
        return trivial
    rotation, image = found
    return Operations(torch.from_numpy(rotation).to(device), torch.from_numpy(image).to(device))


def proposals(
    cell: NDArray[np.float64], positions: NDArray[np.float64], numbers: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Rotations (3, 3) and translations (3,) in lattice coordinates, as spglib finds them."""
    import spglib

    structure: Any = (cell, positions @ np.linalg.inv(cell), numbers)
    with warnings.catch_warnings():
        # spglib announces how it will report failures from its next version on
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(structure, symprec=PROPOSED)
        except Exception as error:  # its class differs between versions of spglib
            _log.debug("spglib finds no space group: %s", error)
            return []
    if found is None:
        return []
    return list(zip(found["rotations"], found["translations"], strict=True))


def group(
    cell: NDArray[np.float64],
    positions: NDArray[np.float64],
    numbers: NDArray[np.int64],
    proposed: list[tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Rotations (n, 3, 3) and images (n, n_atoms) of exact operations, one for each rotation.

    None unless they are a group: what is exact and what is not can then not be told apart.
    """
    inverse = np.linalg.inv(cell)
    scaled = positions @ inverse
    kept: dict[bytes, tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]] = {}
    for lattice, translation in proposed:
        key = np.ascontiguousarray(lattice, dtype=np.int64).tobytes()
        if key in kept:
            continue
        # columns: x -> R x with R = Aᵀ W A⁻ᵀ for rows A of the cell
        rotation = cell.T @ lattice @ inverse.T
        u, _, v = np.linalg.svd(rotation)
        if np.abs(rotation - u @ v).max() * np.abs(cell).max() > EXACT:
            continue
        image = images(scaled, numbers, scaled @ lattice.T + translation, cell)
        if image is not None:
            kept[key] = (np.asarray(lattice, dtype=np.int64), u @ v, image)
    products = {
        np.ascontiguousarray(a @ b).tobytes()
        for a, _, _ in kept.values()
        for b, _, _ in kept.values()
    }
    if not kept or products != set(kept):
        return None
    return np.array([r for _, r, _ in kept.values()]), np.array([i for _, _, i in kept.values()])


def images(
    scaled: NDArray[np.float64],
    numbers: NDArray[np.int64],
    moved: NDArray[np.float64],
    cell: NDArray[np.float64],
) -> NDArray[np.int64] | None:
    """The atom that each moved atom falls on, up to a common shift; None if one misses by EXACT."""
    from scipy.spatial import cKDTree

    wrapped = scaled - np.floor(scaled)
    wrapped[wrapped >= 1.0] = 0.0
    target = moved - np.floor(moved)
    target[target >= 1.0] = 0.0
    _, image = cKDTree(wrapped, boxsize=1.0).query(target)
    if len(np.unique(image)) < len(image) or not np.array_equal(numbers[image], numbers):
        return None
    gap = target - wrapped[image]
    gap -= np.round(gap)
    gap -= gap.mean(axis=0)  # the translation that fits best
    if np.linalg.norm(gap @ cell, axis=1).max() > EXACT:
        return None
    return np.asarray(image, dtype=np.int64)
