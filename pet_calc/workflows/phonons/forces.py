"""Energies and forces of many supercells, in batches where the calculator can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import PetCalcError, SimulationError

Array = NDArray[np.float64]

#: Called with the number of structures that are done and their total.
OnProgress = Callable[[int, int], None]


def forces_of(
    calculator: Any,
    structures: Sequence[Atoms],
    *,
    batch_atoms: int = 1000,
    on_progress: OnProgress | None = None,
) -> tuple[Array, Array]:
    """Energy and forces of each of `structures`, all of the same number of atoms.

    A `ModelCalculator` is given about `batch_atoms` atoms at a time; any other ASE calculator
    computes one structure after the other.

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
    batched = isinstance(calculator, ModelCalculator)
    size = max(1, batch_atoms // max(1, len(structures[0]))) if batched else 1
    energies, forces = [], []
    for begin in range(0, len(structures), size):
        part = structures[begin : begin + size]
        e, f = _batch(calculator, part) if batched else _single(calculator, part[0])
        energies.append(e)
        forces.append(f)
        if on_progress is not None:
            on_progress(begin + len(part), len(structures))
    return np.concatenate(energies), np.concatenate(forces)


def _batch(calculator: ModelCalculator, structures: Sequence[Atoms]) -> tuple[Array, Array]:
    found = calculator.evaluate_many(structures)
    forces = [r.forces.cpu().numpy() for r in found if r.forces is not None]
    return torch.cat([r.energy for r in found]).cpu().numpy(), np.stack(forces)


def _single(calculator: Any, atoms: Atoms) -> tuple[Array, Array]:
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
    return np.array([energy]), np.array(forces)[None]
