r"""ASE's integrators, with an account of the heat that their thermostat gives.

The source of ASE 3.29 was read against the papers before use:

- ``VelocityVerlet``: half kick, drift, half kick; one force call per step. Right.
- ``LangevinBAOAB``: the order is B A O A B, where O is
  :math:`p \to e^{-\gamma\Delta t}\,p + \sqrt{m k_B T\,(1 - e^{-2\gamma\Delta t})}\;\xi`
  (Leimkuhler and Matthews, eqs. 4 and 6). Right. The noise moves the centre of mass, so that the
  temperature counts 3 N degrees of freedom. It drifts positions without asking constraints: fixed
  atoms and a fixed centre of mass work, because their velocities are projected; constraints on
  distances do not and are refused here.
- ``Bussi``: eq. A7 of the paper, thermostat before each velocity Verlet step. Right, but it takes
  3 N degrees of freedom even if the centre of mass is at rest, which makes the other 3 N - 3 too
  hot by a factor N / (N - 1) (0.5 % for 64 water molecules, 14 % for 8 atoms); corrected here.

The heat :math:`Q(t)`, summed from the kinetic energy before and after each thermostat step, makes
:math:`H(t) = E_\mathrm{pot} + E_\mathrm{kin} - Q` a conserved quantity up to the error of velocity
Verlet, for the thermostats as for NVE (Bussi et al., eq. 15; Bussi and Parrinello, Phys. Rev. E 75,
056707 (2007)).
"""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian, FixCom
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet

from pet_calc.workflows.md.config import MDConfig


class Integrator(Protocol):
    """One step of molecular dynamics on the atoms that it was made for."""

    def step(self) -> object:
        """Advance positions and momenta by one timestep."""

    @property
    def heat(self) -> float:
        """Energy that the thermostat has given to the atoms so far, eV."""


class Verlet(VelocityVerlet):
    """Velocity Verlet: constant energy, no thermostat."""

    heat = 0.0


class Langevin(LangevinBAOAB):
    """BAOAB Langevin dynamics that adds up the heat of its O steps."""

    heat = 0.0

    def _BAOAB_OU(self, drag_gamma_mod: float = 0.0) -> None:
        before = self.atoms.get_kinetic_energy()
        super()._BAOAB_OU(drag_gamma_mod)
        self.heat += self.atoms.get_kinetic_energy() - before


class StochasticRescaling(Bussi):
    """Bussi's thermostat over a given number of degrees of freedom."""

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        *,
        temperature_K: float,
        taut: float,
        rng: np.random.Generator,
        n_dof: int,
    ) -> None:
        super().__init__(atoms, timestep, temperature_K=temperature_K, taut=taut, rng=rng)
        self.ndof = n_dof
        self.target_kinetic_energy = 0.5 * self.temp * n_dof

    @property
    def heat(self) -> float:
        """Energy that the thermostat has given to the atoms so far, eV."""
        return float(self.transferred_energy)


def make_integrator(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, *, n_dof: int
) -> Integrator:
    """The integrator that `config` asks for.

    Parameters
    ----------
    atoms : ase.Atoms
        Carries calculator and momenta; both positions and momenta are updated in place.
    config : MDConfig
        Ensemble, timestep, temperature, time constant.
    rng : numpy.random.Generator
        Noise of the thermostat.
    n_dof : int
        Degrees of freedom of the Bussi thermostat.
    """
    dt, tau = config.timestep * units.fs, config.tau * units.fs
    if config.ensemble == "nve":
        return cast(Integrator, Verlet(atoms, dt))
    if config.ensemble == "nvt-langevin":
        refuse_distance_constraints(atoms)
        return cast(
            Integrator,
            Langevin(atoms, dt, temperature_K=config.temperature, T_tau=tau, rng=rng),
        )
    if atoms.get_kinetic_energy() <= 0.0:
        raise ValueError(
            "the Bussi thermostat rescales velocities and cannot start from rest; draw initial "
            "velocities or use nvt-langevin"
        )
    return StochasticRescaling(
        atoms, dt, temperature_K=config.temperature, taut=tau, rng=rng, n_dof=n_dof
    )


def refuse_distance_constraints(atoms: Atoms) -> None:
    """BAOAB ignores constraints on distances; say so instead of breaking them in silence."""
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms | FixCartesian | FixCom):
            raise ValueError(
                f"nvt-langevin does not hold {type(constraint).__name__} constraints; "
                "use nve or nvt-bussi, or remove them"
            )
