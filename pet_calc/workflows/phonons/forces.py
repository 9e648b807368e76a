"""Energies and forces of many supercells, in batches where the calculator can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import PetCalcError, SimulationError
from pet_calc.workflows.progress import OnProgress, Progress

Array = NDArray[np.float64]


def forces_of(
    calculator: Any,
    structures: Sequence[Atoms],
    *,
    batch_edges: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Array, Array]:
    """Energy and forces of each of `structures`, all of the same number of atoms.

    A `ModelCalculator` is given as many at a time as `batch_edges` directed neighbor pairs allow,
    by default as for its ``evaluate_many``; any other ASE calculator computes one structure after
    the other.

    Returns
    -------
    energies : array, shape (n_structures,)
        In eV.
    forces : array, shape (n_structures, n_atoms, 3)
        In eV/Å.

    Raises
    ------
    SimulationError
        If the calculator fails or gives a force that is not a finite number.
    """

    def told(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress("supercells", done, total))

    if isinstance(calculator, ModelCalculator):
        found = calculator.evaluate_many(structures, max_edges=batch_edges, on_progress=told)
        return np.array([r["energy"] for r in found]), np.stack([r["forces"] for r in found])
    energies, forces = [], []
    for k, atoms in enumerate(structures):
        energy, force = _single(calculator, atoms)
        energies.append(energy)
        forces.append(force)
        told(k + 1, len(structures))
    return np.array(energies), np.stack(forces)


def _single(calculator: Any, atoms: Atoms) -> tuple[float, Array]:
    work = atoms.copy()
    work.calc = calculator
    try:
        energy, forces = work.get_potential_energy(), work.get_forces()
    except PetCalcError:
        raise
    except Exception as error:  # any calculator of any package
        raise SimulationError(
            f"{type(calculator).__name__} cannot compute {atoms.get_chemical_formula()} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not np.isfinite(forces).all() or not np.isfinite(energy):
        raise SimulationError(
            f"{type(calculator).__name__} must give finite numbers, but the energy is {energy} eV "
            f"and {int((~np.isfinite(forces)).sum())} component(s) of the forces are not finite"
        )
    return float(energy), np.array(forces)
