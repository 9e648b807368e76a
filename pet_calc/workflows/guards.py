"""What stops a simulation before its numbers lose their meaning.

A neural potential extrapolates without a warning: outside its training data it may pull atoms into
one another or heat the system without bound, and the run goes on. Each guard looks at one symptom
and answers with a :class:`Violation` that says in plain language what happened, and to which atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError, SimulationError
from pet_calc.neighbors.api import check_cell, check_finite
from pet_calc.neighbors.vesin_cpu import complete_cell, vesin_half_list

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GuardSettings:
    """Limits beyond which a simulation is stopped.

    Attributes
    ----------
    contact : float
        Two atoms nearly touch when they are closer than `contact` times the sum of their covalent
        radii (Cordero et al., Dalton Trans. 2008, 2832, as tabulated by ASE). The default 0.6
        gives 0.58 Å for O–H, 0.37 Å for H–H and 1.58 Å for Cu–Cu, well below what thermal motion
        reaches.
    hot_factor : float
        The temperature has exploded above `hot_factor` times the target temperature ...
    hot_floor : float
        ... or above this many K if that is more (starting structures may release heat).
    """

    contact: float = 0.6
    hot_factor: float = 5.0
    hot_floor: float = 1500.0

    def __post_init__(self) -> None:
        for name in ("contact", "hot_factor", "hot_floor"):
            value = getattr(self, name)
            if not np.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number, got {value}")

    def hottest(self, target: float, n_dof: int) -> float:
        """Temperature in K above which a run at `target` K has exploded.

        The kinetic temperature of few degrees of freedom fluctuates by sqrt(2 / n_dof) of its
        mean; six of these are allowed on top, so that a single atom does not trip the guard.
        """
        limit = max(self.hot_factor * target, self.hot_floor)
        return float(limit * (1.0 + 6.0 * np.sqrt(2.0 / max(n_dof, 1))))


@dataclass(frozen=True)
class Violation:
    """What a guard found: the cause in plain language, and the atoms concerned."""

    cause: str
    atoms: tuple[int, ...] = ()


class SimulationStopped(SimulationError):
    """A guard stopped the simulation; the last good frame is on disk.

    Attributes
    ----------
    cause : str
        What happened, in plain language.
    step : int
        The step at which it was found.
    atoms : tuple of int
        Indices of the atoms concerned; empty if it concerns them all.
    last_good_step : int or None
        The last step that passed the guards; None if the start did not.
    last_good_frame : Path or None
        The file with that frame (positions, momenta, energy, forces).
    """

    def __init__(
        self,
        cause: str,
        *,
        step: int,
        time_fs: float,
        atoms: Sequence[int] = (),
        last_good_step: int | None = None,
        last_good_frame: Path | None = None,
    ) -> None:
        self.cause = cause
        self.step = step
        self.time_fs = time_fs
        self.atoms = tuple(atoms)
        self.last_good_step = last_good_step
        self.last_good_frame = last_good_frame
        kept = (
            f" The last good frame, step {last_good_step}, is in {last_good_frame}."
            if last_good_frame is not None
            else " No step passed the checks, so that there is no good frame to keep."
        )
        super().__init__(f"stopped at step {step} ({time_fs:.2f} fs): {cause}.{kept}")


def check_structure(atoms: Atoms) -> None:
    """Refuse a structure that no simulation can start from.

    Raises
    ------
    InvalidStructureError
        For zero atoms, positions or momenta or a cell that are not finite, periodic directions
        without a lattice vector, and masses that are not positive.
    """
    if len(atoms) == 0:
        raise InvalidStructureError(
            "a simulation needs at least one atom, but the structure is empty; check the input file"
        )
    check_finite(atoms.positions, atoms.cell.array)
    check_cell(atoms.cell.array, atoms.pbc, 0)
    momenta = atoms.get_momenta()
    if not np.isfinite(momenta).all():
        atom = int(np.flatnonzero(~np.isfinite(momenta).all(axis=1))[0])
        raise InvalidStructureError(
            f"momenta must be finite, but those of {name_atom(atoms, atom)} are "
            f"{momenta[atom].tolist()}"
        )
    masses = atoms.get_masses()
    if not (np.isfinite(masses) & (masses > 0)).all():
        atom = int(np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))[0])
        raise InvalidStructureError(
            f"masses must be positive, but {name_atom(atoms, atom)} has {masses[atom]} amu; "
            "set atoms.set_masses(...)"
        )


def name_atom(atoms: Atoms, index: int) -> str:
    """An atom as a user knows it: ``atom 12 (O)``, counted from 0 as ASE does."""
    return f"atom {index} ({atoms.symbols[index]})"


def non_finite(atoms: Atoms, energy: float, forces: Array) -> Violation | None:
    """Energy (eV), forces (n_atoms, 3) (eV/Å) and positions must be numbers."""
    for quantity, array in (("position", atoms.positions), ("force", forces)):
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            return Violation(
                f"the {quantity} of {name_atom(atoms, int(bad[0]))}{more} is not a finite number",
                tuple(int(i) for i in bad),
            )
    if not np.isfinite(energy):
        return Violation(f"the potential energy is not a finite number ({energy})")
    return None


def near_contact(atoms: Atoms, contact: float) -> Violation | None:
    """No two atoms, images included, may be closer than `contact` times their radii's sum.

    The worst pair, with the smallest ratio of distance to limit, is named. The cost is one
    neighbour search with a radius of an ångström or two: about 0.1 ms for 200 atoms.
    """
    radii = covalent_radii[atoms.numbers]
    cell = atoms.cell.array
    reach = max(2.0 * contact * float(radii.max()), search_cell(atoms))
    i, j, shifts = vesin_half_list(atoms.positions, cell, atoms.pbc, reach)
    if len(i) == 0:
        return None
    d = atoms.positions[j] - atoms.positions[i] + shifts @ cell
    distance = np.sqrt(np.einsum("pc,pc->p", d, d))  # (n_pairs,)
    limit = contact * (radii[i] + radii[j])
    worst = int(np.argmin(distance / limit))
    if distance[worst] >= limit[worst]:
        return None
    a, b = int(i[worst]), int(j[worst])
    image = " (a periodic image)" if shifts[worst].any() else ""
    return Violation(
        f"{name_atom(atoms, a)} and {name_atom(atoms, b)}{image} nearly touch: "
        f"{distance[worst]:.3f} Å apart, below the limit of {limit[worst]:.3f} Å "
        f"({contact:g} times the sum of their covalent radii)",
        (a, b),
    )


def search_cell(atoms: Atoms) -> float:
    """Cutoff in Å that divides the space of the atoms into few thousand cells, or eight per atom.

    A cell list of the contact distance would cost 15 ms per step for one molecule in a box of
    100 Å, all of it for empty cells.
    """
    box = complete_cell(atoms.cell.array, atoms.pbc)
    free = ~atoms.pbc
    extent = np.ptp(atoms.positions @ np.linalg.inv(box)[:, free], axis=0)  # Å, as box has units
    volume = abs(np.linalg.det(box)) * np.prod(np.maximum(extent, 1.0))
    return float((volume / max(3000, 8 * len(atoms))) ** (1 / 3))


def too_hot(atoms: Atoms, temperature: float, limit: float) -> Violation | None:
    """The kinetic temperature (K) must stay below `limit` (K); the fastest atom is named."""
    if temperature <= limit:
        return None
    kinetic = 0.5 * (atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses()
    fastest = int(np.argmax(kinetic))
    return Violation(
        f"the temperature exploded to {temperature:.0f} K (limit {limit:.0f} K); the fastest is "
        f"{name_atom(atoms, fastest)} with {kinetic[fastest]:.2f} eV of kinetic energy. "
        "A smaller timestep may help; if it does not, the potential does not hold this structure",
        (fastest,),
    )


def find_violation(
    atoms: Atoms,
    energy: float,
    forces: Array,
    temperature: float,
    *,
    hottest: float,
    contact: float,
) -> Violation | None:
    """First violation of finiteness, minimum distance and temperature, in this order."""
    return (
        non_finite(atoms, energy, forces)
        or near_contact(atoms, contact)
        or too_hot(atoms, temperature, hottest)
    )
