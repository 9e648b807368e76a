"""Relaxation to the tolerance that phonons need, in the space group of the structure."""

from __future__ import annotations

from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from pet_calc.errors import SimulationError
from pet_calc.workflows.phonons.config import PhononConfig
from pet_calc.workflows.progress import OnProgress
from pet_calc.workflows.relax.config import Cell, RelaxConfig
from pet_calc.workflows.relax.single import relax


def relax_crystal(
    atoms: Atoms, config: PhononConfig, cell: Cell, on_progress: OnProgress | None = None
) -> Atoms:
    """The structure where forces (and stress) vanish, with its space group unchanged.

    Parameters
    ----------
    atoms : Atoms
        With a calculator; not changed.
    config : PhononConfig
    cell : {"fixed", "free", "isotropic", "shape"}
        What the cell may do, see `RelaxConfig`.
    on_progress : callable, optional

    Raises
    ------
    SimulationError
        If it does not converge, or the calculator has no stress to relax a cell with.
    """
    settings = RelaxConfig(
        optimizer="bfgs",
        cell=cell,
        fmax=config.fmax,
        steps=config.steps,
        symmetrize=True,
        symprec=config.symprec,
    )
    try:
        # small steps: FixSymmetry is linear in the change of the cell
        outcome = relax(atoms, settings, on_progress=on_progress, max_step=0.05)
    except PropertyNotImplementedError as error:
        raise SimulationError(
            f"a relaxation of the cell needs the stress, which the calculator does not give "
            f"({error}); use --cell fixed, or --no-relax"
        ) from error
    if outcome.atoms is None or not outcome.converged:
        raise SimulationError(
            f"the structure must be relaxed before its phonons mean anything, but its relaxation "
            f"to {config.fmax:g} eV/Å ended: {outcome.reason}; allow more steps or a larger fmax, "
            f"start from a relaxed structure, and use float64"
        )
    relaxed = outcome.atoms
    relaxed.calc = atoms.calc
    return relaxed
