"""What a relaxation gives back, and its checks of a geometry on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from pet_calc.workflows.guards import Violation, near_contact, non_finite
from pet_calc.workflows.relax.config import RelaxConfig

Array = NDArray[np.float64]
Status = Literal["converged", "steps", "time", "stopped", "failed", "not started"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Outcome for one structure.

    Attributes
    ----------
    status : str
        "converged"; "steps" or "time" where a cap was reached; "stopped" by a guard, with the last
        good geometry; "failed" where the input or the potential gave an error; "not started".
    reason : str
        Why, in plain language; empty if converged.
    atoms : Atoms or None
        The geometry reached, with its energy, forces and (in a crystal) stress; None if failed.
    start : Atoms or None
        The geometry given.
    steps : int
        Steps of the optimizer.
    seconds : float
        Wall time; in a batch, since the structure entered it.
    potential : str
        Name of the calculator, or of the potential that it chose.
    """

    status: Status
    reason: str
    atoms: Atoms | None
    start: Atoms | None
    steps: int = 0
    seconds: float = 0.0
    potential: str = ""

    @property
    def converged(self) -> bool:
        """Whether the forces (and stress) asked for were reached."""
        return self.status == "converged"

    @property
    def energy(self) -> float:
        """Potential energy in eV, without p·V."""
        assert self.atoms is not None
        return float(self.atoms.get_potential_energy())

    @property
    def fmax(self) -> float:
        """Largest force on an atom in eV/Å, after constraints."""
        assert self.atoms is not None
        return float(np.linalg.norm(self.atoms.get_forces(), axis=1).max())

    @property
    def stress(self) -> Array | None:
        """Stress (6,) in eV/Å³, tension positive; None if not periodic in three dimensions."""
        assert self.atoms is not None
        assert self.atoms.calc is not None
        stress = self.atoms.calc.results.get("stress")
        return None if stress is None else np.asarray(stress)

    @property
    def volume_change(self) -> float:
        """V/V_start − 1; NaN if not periodic in three dimensions."""
        assert self.atoms is not None
        assert self.start is not None
        if not self.atoms.pbc.all():
            return float("nan")
        return float(self.atoms.get_volume() / self.start.get_volume() - 1.0)


def failed(start: Atoms | None, error: Exception | str, seconds: float = 0.0) -> Relaxation:
    """Outcome of a structure that gave an error."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Relaxation("failed", reason, None, start, seconds=seconds)


def frozen_copy(atoms: Atoms, energy: float, forces: Array, stress: Array | None) -> Atoms:
    """A copy that carries its results, without the constraint that kept its symmetry.

    Parameters
    ----------
    atoms : Atoms
    energy : float
        In eV.
    forces : array, shape (n_atoms, 3)
        In eV/Å, before constraints.
    stress : array, shape (6,), or None
        In eV/Å³.
    """
    copy = atoms.copy()
    copy.set_constraint([c for c in atoms.constraints if c.todict()["name"] != "FixSymmetry"])
    results = {"energy": float(energy), "forces": np.array(forces)}
    if stress is not None:
        results["stress"] = np.array(stress)
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def volume_out_of_range(atoms: Atoms, start: float, factor: float) -> Violation | None:
    """The volume must stay within `factor` of `start` (Å³)."""
    volume = atoms.get_volume()
    if start / factor <= volume <= start * factor:
        return None
    return Violation(
        f"the cell went from {start:.1f} to {volume:.1f} Å³, more than the factor of {factor:g} "
        "that is allowed: the potential does not hold this crystal together, or the start is far "
        "from it"
    )


def geometry_violation(atoms: Atoms, start_volume: float, config: RelaxConfig) -> Violation | None:
    """What is wrong with a geometry, before the potential is asked about it."""
    found = near_contact(atoms, config.guards.contact)
    if found is None and config.cell != "fixed":
        found = volume_out_of_range(atoms, start_volume, config.volume_factor)
    return found


def result_violation(
    atoms: Atoms, energy: float, forces: Array, stress: Array | None
) -> Violation | None:
    """Energy, forces and stress must be numbers."""
    found = non_finite(atoms, energy, forces)
    if found is None and stress is not None and not np.isfinite(stress).all():
        return Violation("the stress is not a finite number")
    return found
