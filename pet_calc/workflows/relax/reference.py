"""The relaxed crystal that equations of state and elastic constants start from."""

from __future__ import annotations

from ase import Atoms

from pet_calc.errors import InvalidStructureError, SimulationError
from pet_calc.workflows.guards.config import GuardConfig
from pet_calc.workflows.progress import OnProgress
from pet_calc.workflows.relax.config import RelaxConfig
from pet_calc.workflows.relax.result import Relaxation
from pet_calc.workflows.relax.single import prepared
from pet_calc.workflows.relax.single import relax as relax_one


def relaxed_reference(
    atoms: Atoms,
    fmax: float,
    steps: int,
    *,
    relax: bool,
    guards: GuardConfig,
    on_progress: OnProgress | None = None,
) -> Atoms:
    """The crystal with ions and cell relaxed, or as it is, without constraints.

    Raises
    ------
    InvalidStructureError
        If it is not periodic in three dimensions, or has constraints.
    SimulationError
        If the relaxation does not converge.
    """
    config = RelaxConfig(cell="free", optimizer="bfgs", fmax=fmax, steps=steps, guards=guards)
    if atoms.constraints:
        raise InvalidStructureError(
            "elastic properties are those of a crystal whose atoms may all move, but the "
            "structure has constraints; remove them (atoms.set_constraint())"
        )
    work = prepared(atoms, config)
    if not relax:
        return work
    return require_usable(
        relax_one(work, config, on_progress=on_progress), "the relaxation at the beginning"
    )


def require_usable(outcome: Relaxation, what: str, *, moves: bool = True) -> Atoms:
    """The geometry of a relaxation that reached its end.

    Raises
    ------
    SimulationError
        If it did not converge (with `moves`) or gave no result.
    """
    if outcome.atoms is None or (moves and not outcome.converged) or outcome.status == "stopped":
        raise SimulationError(
            f"{what} must converge, but its outcome is '{outcome.status}' ({outcome.reason}); "
            "allow more steps, or look at what `pet-calc relax` says of the structure"
        )
    return outcome.atoms
