"""One function per symptom: pure, of the state of a simulation and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import InvalidStructureError
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.neighbors.api import check_cell, check_finite
from pet_calc.neighbors.vesin_cpu import complete_cell, vesin_half_list
from pet_calc.workflows.guards.violations import Violation

Array = NDArray[np.float64]


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


def require_covered(atoms: Atoms) -> None:
    """Ask a calculator of this package whether it has a model for a structure, without computing.

    An element that the potential does not know is named before anything is said of distances, which
    it may well be the cause of. Other calculators cannot be asked. With "auto" the potential is
    chosen here.

    Raises
    ------
    UnsupportedElementError
        For an element that the potential does not cover.
    InvalidStructureError
        For a charge or spin that it does not support.
    """
    if isinstance(atoms.calc, ModelCalculator):
        atoms.calc.model_for(atoms)


def name_atom(atoms: Atoms, index: int) -> str:
    """An atom as users count it: ``atom 12 (O)``, counted from 0 as ASE does."""
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


@dataclass(frozen=True)
class ClosePair:
    """Two atoms closer than their limit, with the distance and the limit in Å."""

    atoms: tuple[int, int]
    distance: float
    limit: float
    across: bool

    def named(self, atoms: Atoms) -> str:
        """The two atoms as users count them."""
        a, b = self.atoms
        image = " (a periodic image)" if self.across else ""
        return f"{name_atom(atoms, a)} and {name_atom(atoms, b)}{image}"


def closest_pair(atoms: Atoms, limits: Array, reach: float | None = None) -> ClosePair | None:
    """The pair, images included, with the smallest ratio of distance to limit.

    The cost is one neighbor search with a radius of an ångström or two: about 0.1 ms for 200
    atoms.

    Parameters
    ----------
    atoms : Atoms
    limits : array, shape (119, 119)
        Limits in Å by atomic numbers.
    reach : float, optional
        How far to look, in Å; by default as far as the limits.

    Returns
    -------
    ClosePair or None
        None if no two atoms are within reach.
    """
    if reach is None:
        present = np.unique(atoms.numbers)
        reach = float(limits[np.ix_(present, present)].max())
    cell = atoms.cell.array
    i, j, shifts = vesin_half_list(atoms.positions, cell, atoms.pbc, max(reach, search_cell(atoms)))
    if len(i) == 0:
        return None
    d = atoms.positions[j] - atoms.positions[i] + shifts @ cell
    distance = np.sqrt(np.einsum("pc,pc->p", d, d))  # (n_pairs,)
    limit = limits[atoms.numbers[i], atoms.numbers[j]]
    worst = int(np.argmin(distance / limit))
    return ClosePair(
        atoms=(int(i[worst]), int(j[worst])),
        distance=float(distance[worst]),
        limit=float(limit[worst]),
        across=bool(shifts[worst].any()),
    )


def contact_limits(contact: float) -> Array:
    """`contact` times the sum of covalent radii in Å, by atomic numbers (119, 119)."""
    return np.asarray(contact * np.add.outer(covalent_radii, covalent_radii)[:119, :119])


def training_limits(domain: TrainingDomain, margin: float) -> Array:
    """Shortest distances in training less `margin`, in Å by atomic numbers; 0 where unknown."""
    limits = np.zeros((119, 119))
    for (a, b), distance in domain.shortest_distances.items():
        p, q = atomic_numbers[a], atomic_numbers[b]
        limits[p, q] = limits[q, p] = (1.0 - margin) * distance
    return limits


def near_contact(atoms: Atoms, contact: float) -> Violation | None:
    """No two atoms, images included, may be closer than `contact` times their radii's sum.

    The worst pair, with the smallest ratio of distance to limit, is named.
    """
    pair = closest_pair(atoms, contact_limits(contact))
    if pair is None or pair.distance >= pair.limit:
        return None
    return Violation(
        f"{pair.named(atoms)} nearly touch: {pair.distance:.3f} Å apart, below the limit of "
        f"{pair.limit:.3f} Å ({contact:g} times the sum of their covalent radii)",
        pair.atoms,
    )


def closer_than_trained(atoms: Atoms, domain: TrainingDomain, margin: float) -> Violation | None:
    """No two atoms may be closer than those elements ever were in training, less `margin`."""
    limits = training_limits(domain, margin)
    present = np.unique(atoms.numbers)
    reach = float(limits[np.ix_(present, present)].max())
    if reach == 0.0:
        return None
    # an infinitesimal limit keeps the ratio defined for pairs without one
    pair = closest_pair(atoms, np.maximum(limits, 1e-9), reach)
    if pair is None or pair.distance >= pair.limit:
        return None
    return Violation(
        f"{pair.named(atoms)} are {pair.distance:.3f} Å apart, but the potential was trained on "
        f"no such pair closer than {pair.limit / (1.0 - margin):.3f} Å "
        f"({100 * margin:g} % less are allowed)",
        pair.atoms,
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
    return Violation(
        f"the temperature exploded to {temperature:.0f} K (limit {limit:.0f} K); the fastest is "
        f"{fastest_atom(atoms)[1]}. "
        "A smaller timestep may help; if it does not, the potential does not hold this structure",
        (fastest_atom(atoms)[0],),
    )


def fastest_atom(atoms: Atoms) -> tuple[int, str]:
    """Index of the atom with the largest kinetic energy, and a text that names it."""
    kinetic = 0.5 * (atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses()
    index = int(np.argmax(kinetic))
    return index, f"{name_atom(atoms, index)} with {kinetic[index]:.2f} eV of kinetic energy"


def temperature_jump(
    atoms: Atoms, temperature: float, before: float, limit: float
) -> Violation | None:
    """From one check to the next the temperature (K) may rise by at most `limit` (K)."""
    if temperature - before <= limit:
        return None
    index, name = fastest_atom(atoms)
    return Violation(
        f"the temperature jumped from {before:.0f} to {temperature:.0f} K between two checks "
        f"(at most {limit:.0f} K are allowed); the fastest is {name}",
        (index,),
    )


def energy_jump(
    atoms: Atoms, energy: float, forces: Array, before: float, limit: float
) -> Violation | None:
    """From one check to the next the potential energy (eV) may change by at most `limit` (eV)."""
    if abs(energy - before) <= limit:
        return None
    index = int(np.argmax(np.einsum("nc,nc->n", forces, forces)))
    return Violation(
        f"the potential energy jumped by {energy - before:+.2f} eV between two checks (at most "
        f"{limit:.2f} eV are allowed for {len(atoms)} atoms); the largest force, "
        f"{np.linalg.norm(forces[index]):.2f} eV/Å, is on {name_atom(atoms, index)}",
        (index,),
    )


def density_out_of_range(atoms: Atoms, limits: tuple[float, float]) -> Violation | None:
    """The volume per atom must lie within `limits` (Å³)."""
    volume = float(atoms.get_volume()) / len(atoms)
    if limits[0] <= volume <= limits[1]:
        return None
    where = "below" if volume < limits[0] else "above"
    return Violation(
        f"the volume of {volume:.2f} Å³ per atom is {where} the range of {limits[0]:.2f} to "
        f"{limits[1]:.2f} Å³ in which the potential was trained (margin included)"
    )


def unknown_elements(atoms: Atoms, domain: TrainingDomain) -> Violation | None:
    """All elements must have been in the training structures."""
    known = {atomic_numbers[s] for s in domain.elements}
    bad = [k for k, z in enumerate(atoms.numbers.tolist()) if z not in known]
    if not bad:
        return None
    names = ", ".join(sorted({chemical_symbols[atoms.numbers[k]] for k in bad}))
    return Violation(
        f"the potential was trained on {', '.join(domain.elements)}, but the structure holds "
        f"{names} ({name_atom(atoms, bad[0])} is the first); choose a potential that covers them",
        tuple(bad),
    )


def uncertain_energy(uncertainty: float, n_atoms: int, limit: float) -> Violation | None:
    """The standard deviation of the energy (eV) per atom must be below `limit` (eV)."""
    # written so that NaN is a violation
    if uncertainty / n_atoms <= limit:
        return None
    return Violation(
        f"the potential puts its own error at {1e3 * uncertainty / n_atoms:.1f} meV/atom, above "
        f"the limit of {1e3 * limit:.1f}: the structure lies outside of what it was trained on"
    )


def uncertain_forces(atoms: Atoms, uncertainty: Array, limit: float) -> Violation | None:
    """The standard deviation of every force (eV/Å) must be below `limit` (eV/Å).

    Parameters
    ----------
    atoms : Atoms
    uncertainty : array, shape (n_atoms,) or (n_atoms, 3)
        Of each force, or of its components (their norm counts), eV/Å.
    limit : float
    """
    size = np.linalg.norm(uncertainty.reshape(len(atoms), -1), axis=1)
    bad = np.flatnonzero(~(size <= limit))
    if len(bad) == 0:
        return None
    order = bad[np.argsort(-np.nan_to_num(size[bad], nan=np.inf))]
    worst = int(order[0])
    return Violation(
        f"the potential puts the error of the force on {name_atom(atoms, worst)} at "
        f"{size[worst]:.3f} eV/Å, above the limit of {limit:.3f} ({len(bad)} such atom(s)): its "
        f"surroundings lie outside of what it was trained on",
        tuple(int(k) for k in order),
    )


def offered(atoms: Atoms, name: str) -> Any:
    """A result beyond ASE's standard ones, such as ``forces_uncertainty``; None if not offered."""
    calculator = atoms.calc
    if calculator is None:
        return None
    if name in calculator.implemented_properties:
        return calculator.get_property(name, atoms)
    atoms.get_potential_energy()  # from the cache where it is of these atoms
    return calculator.results.get(name)
