"""Relaxation to the tolerance that phonons need, in the space group of the structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from pet_calc.errors import SimulationError


def relax_crystal(
    atoms: Atoms,
    *,
    cell: str,
    fmax: float,
    steps: int,
    symprec: float,
) -> Atoms:
    """The structure where forces (and stress) vanish, with its space group unchanged.

    Parameters
    ----------
    atoms : Atoms
        With a calculator; not changed.
    cell : {"fixed", "free", "isotropic", "shape"}
        See `RelaxConfig`.
    fmax : float
        Largest force in eV/Å; for the cell, volume · stress per atom in eV.
    steps : int
    symprec : float
        Within which the space group is found and then imposed, Å.

    Raises
    ------
    SimulationError
        If it does not converge, or the calculator has no stress to relax a cell with.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    relaxed = atoms.copy()
    relaxed.calc = atoms.calc
    relaxed.set_constraint(FixSymmetry(relaxed, symprec=symprec))
    target: Any = relaxed
    if cell != "fixed":
        target = FrechetCellFilter(
            relaxed, hydrostatic_strain=cell == "isotropic", constant_volume=cell == "shape"
        )
    try:
        # small steps: FixSymmetry is linear in the change of the cell
        with BFGS(target, logfile=None, maxstep=0.05) as optimizer:
            converged = optimizer.run(fmax=fmax, steps=steps)
    except PropertyNotImplementedError as error:
        raise SimulationError(
            f"a relaxation of the cell needs the stress, which the calculator does not give "
            f"({error}); use --cell fixed, or --no-relax"
        ) from error
    if not converged:
        largest = float(np.linalg.norm(target.get_forces(), axis=1).max())
        raise SimulationError(
            f"the structure must be relaxed before its phonons mean anything, but after "
            f"{steps} steps a force of {largest:.2g} eV/Å is left (wanted: {fmax:g}); allow "
            f"more steps or a larger fmax, start from a relaxed structure, and use float64"
        )
    relaxed.set_constraint()
    return relaxed
