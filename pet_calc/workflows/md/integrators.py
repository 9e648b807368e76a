r"""One step of dynamics, with an account of the energy that thermostat and barostat give.

The source of ASE 3.29 was read against the papers. What is right is used, what is not is here:

- ``VelocityVerlet``: half kick, drift, half kick; one force call per step. Right.
- ``LangevinBAOAB``: the order is B A O A B, where O is
  :math:`p \to e^{-\gamma\Delta t}\,p + \sqrt{m k_B T\,(1 - e^{-2\gamma\Delta t})}\;\xi`
  (Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013), eqs. 4 and 6). Right. The noise moves
  the center of mass, so that the temperature counts 3 N degrees of freedom. It drifts positions
  without asking constraints: fixed atoms and a fixed center of mass work, because their velocities
  are projected; constraints on distances do not and are refused here.
- ``Bussi``: eq. A7 of Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007), thermostat
  before each velocity Verlet step. Right, but it takes 3 N degrees of freedom even if the center of
  mass is at rest, which makes the other 3 N - 3 too hot by a factor N / (N - 1) (0.5 % for 64 water
  molecules, 14 % for 8 atoms); corrected here.
- ``NoseHooverChainNVT``: the equations are right, with the same 3 N. Its chain lives in private
  attributes that no file of ASE keeps, so that a run cannot be continued. Own code here.
- ``IsotropicMTKNPT``, ``MTKNPT``: as before; and MTKNPT gives its barostat's chain nine degrees of
  freedom where the symmetric cell momentum has six, which pulls the barostat towards 1.5 times the
  temperature. Own code in :mod:`pet_calc.workflows.md.barostats`.

The heat :math:`Q(t)`, all energy that thermostat, barostat and swap moves have given to the atoms,
makes :math:`H(t) = E_\mathrm{pot} + E_\mathrm{kin} - Q` a conserved quantity up to the error of the
integration, in every ensemble (Bussi et al., eq. 15; Bussi and Parrinello, Phys. Rev. E 75, 056707
(2007)).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from pet_calc.workflows.md.chains import NoseHooverChain

State = dict[str, NDArray[np.float64]]


class Integrator(Protocol):
    """One step of molecular dynamics on the atoms that it was made for."""

    def step(self) -> object:
        """Advance positions and momenta, and the cell at constant pressure, by one timestep."""

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K and pressure in eV/Å³ for the steps to come."""

    def state(self) -> State:
        """All that the next step depends on beside atoms, targets and noise."""

    def set_state(self, state: State) -> None:
        """Continue from what `state` returned."""

    @property
    def heat(self) -> float:
        """Energy that thermostat and barostat have given to the atoms so far, eV."""


class Verlet(VelocityVerlet):
    """Velocity Verlet: constant energy, no thermostat."""

    heat = 0.0

    def set_target(self, temperature: float, pressure: float) -> None:
        """Nothing is held."""

    def state(self) -> State:
        """Nothing beside the atoms."""
        return {}

    def set_state(self, state: State) -> None:
        """Nothing to set."""


class Langevin(LangevinBAOAB):
    """BAOAB Langevin dynamics that adds up the heat of its O steps."""

    heat = 0.0

    def step(self) -> None:
        """One BAOAB step; the forces come from the calculator, not from the step before."""
        self._update_accel()
        super().step()

    def _BAOAB_OU(self, drag_gamma_mod: float = 0.0) -> None:
        before = self.atoms.get_kinetic_energy()
        super()._BAOAB_OU(drag_gamma_mod)
        self.heat += self.atoms.get_kinetic_energy() - before

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K; there is no pressure to hold."""
        self.set_temperature(temperature)

    def state(self) -> State:
        """The heat."""
        return {"heat": np.array(self.heat)}

    def set_state(self, state: State) -> None:
        """Continue the heat."""
        self.heat = float(state["heat"])


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
        self.set_target(temperature_K, 0.0)

    @property
    def heat(self) -> float:
        """Energy that the thermostat has given to the atoms so far, eV."""
        return float(self.transferred_energy)

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K; there is no pressure to hold."""
        self.temp = units.kB * temperature
        self.target_kinetic_energy = 0.5 * self.temp * self.ndof

    def state(self) -> State:
        """The heat."""
        return {"heat": np.array(self.transferred_energy)}

    def set_state(self, state: State) -> None:
        """Continue the heat."""
        self.transferred_energy = float(state["heat"])


class NoseHoover(VelocityVerlet):
    """A Nosé-Hoover chain around velocity Verlet: half a chain step, Verlet, half a chain step.

    Martyna, Klein and Tuckerman, J. Chem. Phys. 97, 2635 (1992); the order of the operators is that
    of Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996).
    """

    def __init__(
        self, atoms: Atoms, timestep: float, *, temperature_K: float, tau: float, n_dof: int
    ) -> None:
        super().__init__(atoms, timestep)
        self.chain = NoseHooverChain(n_dof, units.kB * temperature_K, tau)
        self.work = 0.0

    def step(self, forces: object = None) -> None:
        """One step; the forces come from the calculator."""
        self._half_chain()
        super().step()
        self._half_chain()

    def _half_chain(self) -> None:
        atoms = self.atoms
        scale = self.chain.propagate(2.0 * atoms.get_kinetic_energy(), 0.5 * self.dt)
        atoms.set_momenta(scale * atoms.get_momenta())

    @property
    def heat(self) -> float:
        """Energy that the chain has given to the atoms so far, eV."""
        return self.work - self.chain.energy

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K; the energy that the chain gains by the change comes from outside."""
        before = self.chain.energy
        self.chain.kT = units.kB * temperature
        self.work += self.chain.energy - before

    def state(self) -> State:
        """Coordinates and velocities of the chain, and the work of a ramp."""
        return {**self.chain.state(), "work": np.array(self.work)}

    def set_state(self, state: State) -> None:
        """Continue the chain."""
        self.chain.set_state(state)
        self.work = float(state["work"])
