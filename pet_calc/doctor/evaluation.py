"""One question to an ASE calculator, independent of what was asked before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    """Results at one structure.

    Attributes
    ----------
    energy : float
        The energy that the forces are the gradient of (ASE's ``free_energy`` where there is one),
        eV.
    forces : array, shape (n_atoms, 3)
        eV/Å, before constraints.
    stress : array, shape (6,), or None
        eV/Å³, tension positive; None if it was not asked for.
    """

    energy: float
    forces: Array
    stress: Array | None = None


def evaluate(calculator: Any, atoms: Atoms, *, stress: bool = False) -> Point:
    """Energy, forces and, if asked for, stress; arrays that the calculator cannot change later."""
    work = bare(atoms)
    work.calc = calculator
    consistent = "free_energy" in calculator.implemented_properties
    return Point(
        energy=float(work.get_potential_energy(force_consistent=consistent)),
        forces=np.array(work.get_forces(), dtype=np.float64),
        stress=np.array(work.get_stress(), dtype=np.float64) if stress else None,
    )


def bare(atoms: Atoms) -> Atoms:
    """A copy without calculator, constraints and momenta; charge and spin stay in its `info`."""
    return Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        info=dict(atoms.info),
    )


def displaced(atoms: Atoms, rng: np.random.Generator, size: float) -> Atoms:
    """A copy whose coordinates carry Gaussian noise of `size` Å.

    In a relaxed structure any multiple of the forces is zero; beside it they can be wrong.
    """
    moved = bare(atoms)
    moved.positions += size * rng.standard_normal(moved.positions.shape)
    return moved


def strained(atoms: Atoms, strain: Array) -> Atoms:
    """A copy under the deformation x -> (1 + strain) x with a symmetric strain (3, 3)."""
    moved = bare(atoms)
    moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=False)
    moved.positions = atoms.positions @ (np.eye(3) + strain)
    return moved


def largest(forces: Array) -> float:
    """Length of the longest row, eV/Å; NaN if one is not finite."""
    return float(np.linalg.norm(forces, axis=1).max())


def is_double(calculator: Any) -> bool:
    """Whether a calculator declares that it computes in float64."""
    return str(getattr(calculator, "dtype", "")).removeprefix("torch.") == "float64"


@dataclass(frozen=True)
class Noise:
    """Rounding in the results of a calculator: of the energy in eV, of a force in eV/Å."""

    energy: float = 0.0
    forces: float = 0.0

    def bounded(self, value: float, least: float, most: float) -> float:
        """A limit that allows for `value` of noise, but for no more than single precision has."""
        return min(least + value, most) if np.isfinite(value) else most


def measure_noise(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, step: float = 1e-5
) -> Noise:
    """Rounding errors, from three points on a line that are 10⁻⁵ Å apart.

    So close to each other the forces are a linear function: what the trapezoidal rule leaves of
    the energy, and the second difference of the forces, is noise. Steps much smaller would not
    change numbers in single precision at all.
    """
    direction = rng.standard_normal(atoms.positions.shape)
    points = []
    for k in range(3):
        moved = bare(atoms)
        moved.positions += k * step * direction
        points.append(evaluate(calculator, moved))
    a, b, c = points
    residuals = [
        q.energy - p.energy + 0.5 * step * float(((p.forces + q.forces) * direction).sum())
        for p, q in ((a, b), (b, c))
    ]
    return Noise(
        energy=max(abs(r) for r in residuals),
        forces=largest(a.forces - 2.0 * b.forces + c.forces) / 2.0,
    )
