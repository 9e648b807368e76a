"""What must not change the energy: rotation, inversion, permutation, translation, wrapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pet_calc.doctor.evaluation import (
    Noise,
    Point,
    bare,
    displaced,
    evaluate,
    largest,
    measure_noise,
)
from pet_calc.doctor.finding import Finding, Limit, skipped, worst

Array = NDArray[np.float64]


def compared(
    check: str, change: float, forces: float, energy_limit: Limit, force_limit: Limit
) -> Finding:
    """Finding about a change of the energy (eV/atom) and of the forces (eV/Å)."""
    return Finding(
        check,
        worst([energy_limit.judge(change), force_limit.judge(forces)]),
        f"forces {forces:.1e} eV/Å, energy {change:.1e} eV/atom",
        f"forces {force_limit}; energy {energy_limit}",
        {"forces": forces, "energy_per_atom": change},
    )


def limits(
    atoms: Atoms,
    calculator: Any,
    noise: Noise | None,
    rng: np.random.Generator,
    *,
    learned: bool = False,
) -> tuple[Limit, Limit]:
    """Limits of energy per atom and forces for a symmetry.

    An exact symmetry may be broken by rounding only. A potential that learned it from data breaks
    it by about its error.
    """
    noise = noise or measure_noise(atoms, calculator, rng=rng)
    energy = noise.bounded(10.0 * noise.energy / len(atoms), 1e-8, 1e-5)
    forces = noise.bounded(10.0 * noise.forces, 1e-6, 1e-3)
    return (
        Limit(energy, 5e-3 if learned else 1e-4, "eV/atom"),
        Limit(forces, 0.2 if learned else 1e-2, "eV/Å"),
    )


def differences(before: Point, after: Point, n_atoms: int) -> tuple[float, float]:
    """Change of the energy per atom (eV) and the largest of a force (eV/Å)."""
    return abs(after.energy - before.energy) / n_atoms, largest(after.forces - before.forces)


def rotation_error(
    atoms: Atoms,
    calculator: Any,
    *,
    rng: np.random.Generator,
    rotations: int = 3,
    noise: Noise | None = None,
) -> Finding:
    """Energy and forces under random rotations of atoms and cell; the largest of each."""
    start = displaced(atoms, rng, 0.02)
    reference = evaluate(calculator, start)
    found = []
    for rotation in Rotation.random(rotations, random_state=rng):
        matrix = rotation.as_matrix()
        turned = bare(start)
        turned.set_cell(start.cell.array @ matrix.T)
        turned.positions = start.positions @ matrix.T
        point = evaluate(calculator, turned)
        back = Point(point.energy, point.forces @ matrix)
        found.append(differences(reference, back, len(atoms)))
    energies, forces = np.array(found).T
    finding = compared(
        "rotation",
        float(energies.max()),
        float(forces.max()),
        *limits(start, calculator, noise, rng, learned=True),
    )
    finding.values["rotations"] = rotations
    return finding


def inversion_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Energy and forces under x -> -x; the lattice stays itself."""
    start = displaced(atoms, rng, 0.02)
    mirrored = bare(start)
    mirrored.positions = -start.positions
    point = evaluate(calculator, mirrored)
    change = differences(
        evaluate(calculator, start), Point(point.energy, -point.forces), len(atoms)
    )
    return compared("inversion", *change, *limits(start, calculator, noise, rng, learned=True))


def permutation_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Energy and forces when the atoms are listed in another order."""
    if len(atoms) == 1:
        return skipped("permutation", "one atom has one order")
    start = displaced(atoms, rng, 0.02)
    order = rng.permutation(len(atoms))
    point = evaluate(calculator, start[order])
    forces = np.empty_like(point.forces)
    forces[order] = point.forces
    change = differences(evaluate(calculator, start), Point(point.energy, forces), len(atoms))
    return compared("permutation", *change, *limits(start, calculator, noise, rng))


def translation_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Energy and forces when everything is shifted by the same vector."""
    shift = rng.uniform(-5.0, 5.0, 3)
    return unchanged("translation", atoms, calculator, rng, noise, lambda x: x + shift)


def wrapping_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Energy and forces when single atoms are replaced by their periodic images."""
    if not atoms.pbc.any():
        return skipped("wrapping", "the structure is not periodic")
    images = rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    shifts = images @ atoms.cell.array
    return unchanged("wrapping", atoms, calculator, rng, noise, lambda x: x + shifts)


def unchanged(
    check: str,
    atoms: Atoms,
    calculator: Any,
    rng: np.random.Generator,
    noise: Noise | None,
    move: Callable[[Array], Array],
) -> Finding:
    """Finding about a change of the positions that leaves the physics alone."""
    start = displaced(atoms, rng, 0.02)
    moved = bare(start)
    moved.positions = move(start.positions)
    change = differences(evaluate(calculator, start), evaluate(calculator, moved), len(atoms))
    return compared(check, *change, *limits(start, calculator, noise, rng))
