"""From the settings of a run to the integrator that carries them out."""

from __future__ import annotations

from typing import cast

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian, FixCom

from pet_calc.workflows.md.barostats import CellRescaling, MartynaTobiasKlein
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.integrators import (
    Integrator,
    Langevin,
    NoseHoover,
    StochasticRescaling,
    Verlet,
)


def make_integrator(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, *, n_dof: int
) -> Integrator:
    """The integrator that `config` asks for, with the targets of its first step.

    Parameters
    ----------
    atoms : ase.Atoms
        Carries calculator and momenta; positions, momenta and cell are updated in place.
    config : MDConfig
        Ensemble, timestep, temperature, pressure, time constants.
    rng : numpy.random.Generator
        Noise of thermostat and barostat.
    n_dof : int
        Degrees of freedom over which the kinetic energy is shared.
    """
    dt, tau = config.timestep * units.fs, config.tau * units.fs
    temperature = config.temperature
    if config.ensemble == "nve":
        return cast(Integrator, Verlet(atoms, dt))
    if config.ensemble == "nvt-langevin":
        refuse_distance_constraints(atoms)
        return cast(Integrator, Langevin(atoms, dt, temperature_K=temperature, T_tau=tau, rng=rng))
    if atoms.get_kinetic_energy() <= 0.0:
        raise ValueError(
            f"{config.ensemble} rescales velocities and cannot start from rest; draw initial "
            "velocities or use nvt-langevin"
        )
    if config.ensemble == "nvt-bussi":
        return StochasticRescaling(
            atoms, dt, temperature_K=temperature, taut=tau, rng=rng, n_dof=n_dof
        )
    if config.ensemble == "nvt-nhc":
        return NoseHoover(atoms, dt, temperature_K=temperature, tau=tau, n_dof=n_dof)
    if atoms.constraints:
        raise ValueError(
            f"{config.ensemble} changes the cell and holds no constraints, but the structure has "
            f"{type(atoms.constraints[0]).__name__}; remove them or keep the volume"
        )
    pressure, pressure_tau = config.pressure * units.GPa, config.pressure_tau * units.fs
    if config.ensemble == "npt-scr":
        return CellRescaling(
            StochasticRescaling(
                atoms, dt, temperature_K=temperature, taut=tau, rng=rng, n_dof=n_dof
            ),
            pressure=pressure,
            tau=pressure_tau,
            compressibility=config.compressibility / units.GPa,
        )
    return MartynaTobiasKlein(
        atoms,
        dt,
        kT=units.kB * temperature,
        pressure=pressure,
        tau=tau,
        pressure_tau=pressure_tau,
        n_dof=n_dof,
        isotropic=config.ensemble == "npt-mtk-iso",
    )


def refuse_distance_constraints(atoms: Atoms) -> None:
    """BAOAB ignores constraints on distances; say so instead of breaking them in silence."""
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms | FixCartesian | FixCom):
            raise ValueError(
                f"nvt-langevin does not hold {type(constraint).__name__} constraints; "
                "use nve or nvt-bussi, or remove them"
            )


def require_stress(atoms: Atoms) -> None:
    """Raise unless the stress of `atoms` can be computed and means something.

    Raises
    ------
    ValueError
        For a structure that is not periodic in three directions, a calculator without stress, and
        a potential whose card states that its data had none (``labels`` without ``stress``): such a
        potential returns numbers, but nothing has taught it what they should be.
    """
    if not atoms.pbc.all():
        raise ValueError(
            "constant pressure needs periodicity in three directions, but the structure has "
            f"pbc={atoms.pbc.tolist()}; keep the volume, or set atoms.pbc = True"
        )
    properties = getattr(atoms.calc, "implemented_properties", ())
    if "stress" not in properties:
        raise ValueError(
            f"constant pressure needs the stress, but {type(atoms.calc).__name__} computes "
            f"{', '.join(properties) or 'nothing'}; choose another potential or keep the volume"
        )
    potential = getattr(atoms.calc, "potential", None)
    card = getattr(potential, "card", None)
    labels = None if card is None else card.front.get("labels")
    if labels is not None and "stress" not in labels:
        raise ValueError(
            "constant pressure needs a potential that was trained on stress, but the data of "
            f"{getattr(potential, 'name', 'this one')} have {', '.join(labels)} only; keep the "
            "volume, or choose another potential"
        )
