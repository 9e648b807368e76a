"""Random structure search: random cells and sites with a least separation.

The baseline of every generator (C. J. Pickard and R. J. Needs, J. Phys.: Condens. Matter 23,
053201, 2011), without symmetry.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.geometry_window import GeometryWindow, closest_contact
from pet_calc.errors import SimulationError

#: Attempts at one structure before the search gives up.
ATTEMPTS = 2000


def propose_random(
    composition: Composition,
    n: int,
    *,
    seed: int,
    separation: float = 0.7,
    window: GeometryWindow | None = None,
) -> list[Atoms]:
    """Random crystals of a composition.

    Volumes are uniform between 0.7 and 1.3 of the expected one, lengths within a factor of two of
    each other, angles uniform between 60° and 120°.

    Parameters
    ----------
    composition : Composition
    n : int
        Crystals wanted.
    seed : int
        The same seed gives the same crystals.
    separation : float
        Least distance of two atoms over the sum of their covalent radii.
    window : GeometryWindow, optional
        Which proposals to keep.

    Raises
    ------
    SimulationError
        If no crystal that fits is found in `ATTEMPTS` attempts.
    """
    rng = np.random.default_rng(seed)
    window = window or GeometryWindow()
    found: list[Atoms] = []
    misses = 0
    while len(found) < n:
        atoms = _attempt(composition, rng)
        # crowded cells are given more room after every hundred misses
        atoms.set_cell(atoms.cell * 1.03 ** (misses // 100), scale_atoms=True)
        if not window.objection(atoms) and closest_contact(atoms, separation) >= separation:
            found.append(atoms)
            misses = 0
            continue
        misses += 1
        if misses >= ATTEMPTS:
            raise SimulationError(
                f"no random cell of {composition.formula} with {composition.n_atoms} atoms fits "
                f"the bounds in {ATTEMPTS} attempts; widen them, or ask for fewer formula units"
            )
    return found


def _attempt(composition: Composition, rng: np.random.Generator) -> Atoms:
    """One random cell; its atoms are put where the last one is far, the best of ten places."""
    volume = composition.volume * rng.uniform(0.7, 1.3)
    while True:
        shape = cellpar_to_cell([*rng.uniform(0.7, 1.4, 3), *rng.uniform(60.0, 120.0, 3)])
        cell_volume = abs(np.linalg.det(shape))
        if np.isfinite(shape).all() and cell_volume > 0.2:
            break
    cell = shape * (volume / cell_volume) ** (1 / 3)
    numbers = rng.permutation(composition.numbers)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = rng.random((1, 3))
    for _ in range(1, len(numbers)):
        trial = rng.random((10, 3))
        delta = trial[:, None, None] - sites[None, :, None] + shifts
        distances = np.linalg.norm(delta @ cell, axis=-1).min((1, 2))
        sites = np.vstack([sites, trial[distances.argmax()]])
    order = np.argsort(numbers, kind="stable")
    return Atoms(numbers[order], scaled_positions=sites[order], cell=cell, pbc=True)
