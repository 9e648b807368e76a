"""What stops a simulation before its numbers lose their meaning.

A neural potential extrapolates without a warning: outside its training data it may pull atoms into
one another or heat the system without bound, and the run goes on. Each check looks at one symptom
and answers with a :class:`Violation` that says in plain language what happened, and to which atoms.
A :class:`Guard` holds the limits of one run: ``Guard.at_start(atoms)`` refuses a start that cannot
be used, ``guard.find(...)`` judges each state.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.guards.checks import (
        check_structure,
        closer_than_trained,
        closest_pair,
        contact_limits,
        density_out_of_range,
        energy_jump,
        name_atom,
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
    from pet_calc.workflows.guards.guard import Guard, Reading
    from pet_calc.workflows.guards.violations import SimulationStopped, Violation

__all__ = [
    "Guard",
    "GuardConfig",
    "Reading",
    "SimulationStopped",
    "Violation",
    "check_structure",
    "closer_than_trained",
    "closest_pair",
    "contact_limits",
    "density_out_of_range",
    "energy_jump",
    "name_atom",
    "near_contact",
    "non_finite",
    "offered",
    "require_covered",
    "temperature_jump",
    "too_hot",
    "uncertain_energy",
    "uncertain_forces",
    "unknown_elements",
]

__getattr__ = lazy_names(__name__, "config", "violations", "checks", "guard")
