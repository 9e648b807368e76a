"""Relaxation of one structure by an optimizer of ASE, with any ASE calculator."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from ase.optimize.optimize import Optimizer
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError, PetCalcError
from pet_calc.units import GPA
from pet_calc.workflows.guards import Guard, Violation, check_structure
from pet_calc.workflows.progress import OnProgress, Progress
from pet_calc.workflows.relax.config import RelaxConfig
from pet_calc.workflows.relax.result import (
    Relaxation,
    Status,
    frozen_copy,
    geometry_violation,
    result_violation,
)
from pet_calc.workflows.relax.symmetry import fix_symmetry

OPTIMIZERS: dict[str, type[Optimizer]] = {"fire": FIRE, "bfgs": BFGS, "lbfgs": LBFGS}


def relax(
    atoms: Atoms,
    config: RelaxConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
    max_step: float = 0.2,
) -> Relaxation:
    """Move atoms (and cell) to where forces (and stress) vanish.

    Parameters
    ----------
    atoms : Atoms
        Structure with a calculator, and constraints if wanted; it is not changed.
    config : RelaxConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of each step; its value is ``fmax_eV_per_A``.
    max_step : float
        Largest move of an atom in one step, Å.

    Returns
    -------
    Relaxation
        Also where a cap or a guard stopped it; see its `status`.

    Raises
    ------
    InvalidStructureError
        For a structure that no relaxation can start from.
    ValueError
        For a limit on an uncertainty that the calculator does not give.
    """
    config = config or RelaxConfig()
    work = prepared(atoms, config)
    began = time.monotonic()
    limit = began + min(config.seconds or np.inf, config.total_seconds or np.inf)
    volume = work.get_volume() if work.pbc.all() else 0.0
    found = geometry_violation(work, volume, config)
    if found is not None:
        raise InvalidStructureError(found.cause)
    guard = Guard(config.guards)
    guard.require_uncertainties(work)
    steps, good = 0, None
    status: Status = "steps"
    reason = f"not converged after {config.steps} steps"
    kind = OPTIMIZERS[config.optimizer]
    with kind(moved(work, config), logfile=None, maxstep=max_step) as optimizer:
        try:
            for converged in optimizer.irun(fmax=config.fmax, steps=config.steps):
                energy, forces, stress = results(work)
                found = (
                    geometry_violation(work, volume, config)
                    or result_violation(work, energy, forces, stress)
                    or guard.uncertain(work)
                )
                if found is not None:
                    break
                steps, good = optimizer.nsteps, frozen_copy(work, energy, forces, stress)
                if on_progress is not None:
                    largest = float(np.linalg.norm(work.get_forces(), axis=1).max())
                    on_progress(step_progress(steps, config.steps, largest))
                if converged:
                    status, reason = "converged", ""
                elif steps < config.steps and time.monotonic() > limit:
                    status, reason = "time", f"out of time after {steps} steps"
                    break
        except PetCalcError as error:
            # before the first result the input is at fault, later the path that was taken
            if good is None:
                raise
            found = Violation(str(error))
    if found is not None:
        if good is None:
            raise InvalidStructureError(found.cause)
        status, reason = "stopped", f"at step {steps + 1}: {found.cause}"
    seconds, name = time.monotonic() - began, str(getattr(atoms.calc, "name", ""))
    return Relaxation(status, reason, good, atoms.copy(), steps, seconds, name)


def step_progress(step: int, steps: int, largest: float, together: int = 1) -> Progress:
    """A step of `together` structures of which `largest` is the largest force, eV/Å."""
    text = f"largest force {largest:.4f} eV/Å"
    if together > 1:
        text = f"{together} at a time, {text}"
    return Progress("relaxation", step, steps, text, {"fmax_eV_per_A": largest})


def prepared(atoms: Atoms, config: RelaxConfig) -> Atoms:
    """A copy that shares the calculator, checked, and with its symmetry fixed if asked for.

    Raises
    ------
    InvalidStructureError
        For a structure that no simulation can start from, and a cell to relax that is not
        periodic in three dimensions.
    """
    check_structure(atoms)
    if config.cell != "fixed" and not atoms.pbc.all():
        raise InvalidStructureError(
            f"a cell can be relaxed only if it is periodic in three dimensions, but the structure "
            f"has pbc={atoms.pbc.tolist()}; keep it fixed, or set the periodicity"
        )
    work = atoms.copy()
    if config.symmetrize:
        fix_symmetry(work, config.symprec)
    work.calc = atoms.calc
    return work


def moved(atoms: Atoms, config: RelaxConfig) -> Any:
    """What the optimizer moves: the atoms, or the atoms and their cell."""
    if config.cell == "fixed":
        return atoms
    return FrechetCellFilter(
        atoms,
        scalar_pressure=config.pressure * GPA,
        hydrostatic_strain=config.cell == "isotropic",
        constant_volume=config.cell == "shape",
    )


def results(
    atoms: Atoms,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64] | None]:
    """Energy (eV), forces before constraints (n_atoms, 3) and, in a crystal, stress (6,)."""
    assert atoms.calc is not None
    energy = float(atoms.get_potential_energy())
    forces = atoms.get_forces(apply_constraint=False)
    known = "stress" in atoms.calc.implemented_properties and bool(atoms.pbc.all())
    stress = atoms.get_stress(apply_constraint=False) if known else None
    return energy, forces, stress
