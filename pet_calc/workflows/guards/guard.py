"""The guard of one run: its limits, put together at the start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError
from pet_calc.io.models.domain import TrainingDomain, training_domain
from pet_calc.workflows.guards.checks import (
    check_structure,
    closer_than_trained,
    density_out_of_range,
    energy_jump,
    near_contact,
    non_finite,
    offered,
    require_covered,
    temperature_jump,
    too_hot,
    uncertain_energy,
    uncertain_forces,
    unknown_elements,
)
from pet_calc.workflows.guards.config import GuardConfig
from pet_calc.workflows.guards.violations import Violation

Array = NDArray[np.float64]


class Reading(NamedTuple):
    """What a guard compares the next state with: energy in eV, kinetic temperature in K."""

    energy: float
    temperature: float | None = None


@dataclass(frozen=True)
class Guard:
    """Limits of one run, for a loop of any kind.

    >>> guard = Guard.at_start(atoms, GuardConfig(forces_uncertainty=0.5))  # doctest: +SKIP
    >>> found = guard.find(atoms, energy, forces, previous=reading)  # doctest: +SKIP

    Attributes
    ----------
    config : GuardConfig
    domain : TrainingDomain or None
        Domain that the calculator's potential was trained on.
    volume_per_atom : tuple of float, or None
        Limits in Å³: the range of the training and the start, with the margin; None where the
        training is not known, or the structure is not periodic in three dimensions.
    """

    config: GuardConfig
    domain: TrainingDomain | None = None
    volume_per_atom: tuple[float, float] | None = None

    @classmethod
    def at_start(cls, atoms: Atoms, config: GuardConfig | None = None) -> Guard:
        """The guard of a run that begins with `atoms`, which carry their calculator.

        A start outside of the trained densities is let pass, because a slab with its vacuum is one,
        and widens the range.

        Raises
        ------
        InvalidStructureError
            If the structure cannot be simulated, has touching atoms, or elements or distances that
            the training did not have.
        UnsupportedElementError
            If the potential does not cover an element.
        ValueError
            If a limit on the uncertainty is set and the calculator gives none.
        """
        config = config or GuardConfig()
        check_structure(atoms)
        require_covered(atoms)
        domain = training_domain(atoms.calc)
        found = None if domain is None else unknown_elements(atoms, domain)
        found = found or near_contact(atoms, config.contact)
        if found is None and domain is not None:
            found = closer_than_trained(atoms, domain, config.distance_margin)
        if found is not None:
            raise InvalidStructureError(f"the starting structure cannot be used: {found.cause}")
        guard = cls(config, domain)
        guard.require_uncertainties(atoms)
        if domain is not None and domain.volume_per_atom is not None and atoms.pbc.all():
            start = float(atoms.get_volume()) / len(atoms)
            low, high = domain.volume_per_atom
            limits = (
                (1.0 - config.volume_margin) * min(low, start),
                (1.0 + config.volume_margin) * max(high, start),
            )
            guard = replace(guard, volume_per_atom=limits)
        return guard

    def require_uncertainties(self, atoms: Atoms) -> None:
        """Raise `ValueError` if an uncertainty has a limit and the calculator gives none."""
        for name in ("energy_uncertainty", "forces_uncertainty"):
            limit = getattr(self.config, name)
            if limit is not None and offered(atoms, name) is None:
                raise ValueError(
                    f"`{name}` is limited to {limit}, but {type(atoms.calc).__name__} gives no "
                    f"{name}; leave the limit out, or use a potential that estimates its "
                    f"uncertainty, or several (`--model a,b,c`)"
                )

    def find(
        self,
        atoms: Atoms,
        energy: float,
        forces: Array,
        *,
        temperature: float | None = None,
        hottest: float | None = None,
        previous: Reading | None = None,
    ) -> Violation | None:
        """The first violation of a state, the gravest symptom first; None for a good state.

        Parameters
        ----------
        atoms : Atoms
            With the calculator that gave the results.
        energy : float
            Potential energy, eV.
        forces : array, shape (n_atoms, 3)
            Before constraints, eV/Å.
        temperature, hottest : float, optional
            Kinetic temperature and its limit (`GuardConfig.hottest`) in K, in dynamics.
        previous : Reading, optional
            Of the last good state. Leave it out after a move that changes the energy at will, such
            as a swap or a step of an optimizer that is far from its goal.
        """
        config = self.config
        found = non_finite(atoms, energy, forces) or near_contact(atoms, config.contact)
        if found is None and self.domain is not None:
            found = closer_than_trained(atoms, self.domain, config.distance_margin)
        if found is None and temperature is not None and hottest is not None:
            found = too_hot(atoms, temperature, hottest)
            if found is None and previous is not None and previous.temperature is not None:
                limit = config.temperature_jump * hottest
                found = temperature_jump(atoms, temperature, previous.temperature, limit)
        if found is None and previous is not None:
            limit = config.largest_energy_change(len(atoms))
            found = energy_jump(atoms, energy, forces, previous.energy, limit)
        if found is None and self.volume_per_atom is not None:
            found = density_out_of_range(atoms, self.volume_per_atom)
        return found or self.uncertain(atoms)

    def uncertain(self, atoms: Atoms) -> Violation | None:
        """Whether an uncertainty exceeds its limit."""
        found = None
        if self.config.energy_uncertainty is not None:
            value = float(offered(atoms, "energy_uncertainty"))
            found = uncertain_energy(value, len(atoms), self.config.energy_uncertainty)
        if found is None and self.config.forces_uncertainty is not None:
            values = np.asarray(offered(atoms, "forces_uncertainty"))
            found = uncertain_forces(atoms, values, self.config.forces_uncertainty)
        return found
