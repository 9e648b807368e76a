r"""Constant pressure: Martyna-Tobias-Klein dynamics and stochastic cell rescaling.

Both scale absolute positions with the cell; positions stay unwrapped. Pressures are in eV/Å³ and
positive in compression, the internal one is
:math:`P_{ab} = \left(\sum_i p_{ia} p_{ib} / m_i\right) / V - \sigma_{ab}`.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from scipy.special import exprel

from pet_calc.workflows.md.chains import NoseHooverChain
from pet_calc.workflows.md.integrators import State, StochasticRescaling

Array = NDArray[np.float64]


class MartynaTobiasKlein:
    r"""Constant pressure and temperature by an extended system.

    With :math:`v` the symmetric 3 x 3 rate of strain of the cell (a multiple of 1 if `isotropic`),
    :math:`n` the degrees of freedom of the atoms and rows as vectors,

    .. math::

        \dot r = p/m + r v, \quad \dot h = h v, \quad
        \dot p = F - p\,(v + \mathrm{tr}(v)/n), \quad
        W \dot v = V (P_\mathrm{int} - P_0 1) + \frac1n \sum_i \frac{p_i^2}{m_i} 1

    with :math:`W = (n + 3) k_B T \tau_p^2 / 3`, a Nosé-Hoover chain on the atoms and one on
    :math:`v` (Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994)), integrated as in
    Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996): one force call per step.

    A symmetric :math:`v` has six degrees of freedom and turns no cell. Trust the full cell for
    solids: the shape of a liquid's cell has no restoring force and wanders.

    Parameters
    ----------
    atoms : ase.Atoms
    dt, tau, pressure_tau : float
        Timestep and time constants of the two chains, ASE's unit of time.
    kT : float
        eV.
    pressure : float
        P_0, eV/Å³.
    n_dof : int
        n.
    isotropic : bool
        Keep the shape of the cell.
    """

    def __init__(
        self,
        atoms: Atoms,
        dt: float,
        *,
        kT: float,
        pressure: float,
        tau: float,
        pressure_tau: float,
        n_dof: int,
        isotropic: bool,
    ) -> None:
        self.atoms = atoms
        self.dt = dt
        self.pressure = pressure
        self.pressure_tau = pressure_tau
        self.n_dof = n_dof
        self.isotropic = isotropic
        self.chain = NoseHooverChain(n_dof, kT, tau)
        self.cell_chain = NoseHooverChain(1 if isotropic else 6, kT, pressure_tau)
        self.v = np.zeros((3, 3))
        self.start = pressure * atoms.get_volume()
        self.work = 0.0

    @property
    def masses(self) -> Array:
        """Of the atoms, shape (n_atoms, 1), amu; a swap changes them."""
        return np.asarray(self.atoms.get_masses()[:, None])

    @property
    def mass(self) -> float:
        """W, eV times ASE's unit of time squared."""
        return (self.n_dof + 3) * self.chain.kT * self.pressure_tau**2 / 3.0

    def step(self) -> None:
        """One step."""
        half = 0.5 * self.dt
        self._chains(half)
        self._kick_cell(half)
        self._kick(half)
        self._drift(self.dt)
        self._kick(half)
        self._kick_cell(half)
        self._chains(half)

    def _chains(self, dt: float) -> None:
        self.v *= self.cell_chain.propagate(self.mass * float((self.v**2).sum()), dt)
        scale = self.chain.propagate(2.0 * self.atoms.get_kinetic_energy(), dt)
        self.atoms.set_momenta(scale * self.atoms.get_momenta())

    def _kick_cell(self, dt: float) -> None:
        atoms = self.atoms
        p = atoms.get_momenta()
        kinetic = p.T @ (p / self.masses)
        virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
        force = kinetic + virial
        force += (np.trace(kinetic) / self.n_dof - atoms.get_volume() * self.pressure) * np.eye(3)
        if self.isotropic:
            force = np.trace(force) / 3.0 * np.eye(3)
        self.v += dt * force / self.mass

    def _kick(self, dt: float) -> None:
        rates, axes = np.linalg.eigh(self.v + np.trace(self.v) / self.n_dof * np.eye(3))
        p, forces = self.atoms.get_momenta() @ axes, self.atoms.get_forces(md=True) @ axes
        self.atoms.set_momenta(
            (p * np.exp(-rates * dt) + dt * forces * exprel(-rates * dt)) @ axes.T
        )

    def _drift(self, dt: float) -> None:
        atoms = self.atoms
        rates, axes = np.linalg.eigh(self.v)
        grow = np.exp(rates * dt)
        r, u = atoms.positions @ axes, atoms.get_momenta() / self.masses @ axes
        cell = (atoms.cell.array @ axes * grow) @ axes.T
        atoms.set_positions((r * grow + dt * u * exprel(rates * dt)) @ axes.T)
        atoms.set_cell(cell, scale_atoms=False)

    @property
    def outside(self) -> float:
        """Energy of chains, cell and reservoir of pressure, eV."""
        cell = 0.5 * self.mass * float((self.v**2).sum())
        volume = self.pressure * self.atoms.get_volume() - self.start
        return float(self.chain.energy + self.cell_chain.energy + cell + volume)

    @property
    def heat(self) -> float:
        """Energy that thermostat and barostat have given to the atoms so far, eV."""
        return self.work - self.outside

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K, pressure in eV/Å³; energy gained by the change comes from outside."""
        before = self.outside
        self.chain.kT = self.cell_chain.kT = units.kB * temperature
        self.pressure = pressure
        self.work += self.outside - before

    def state(self) -> State:
        """Both chains, the rate of strain, and the offsets of the energy account."""
        return {
            **self.chain.state(),
            **self.cell_chain.state("cell_chain"),
            "strain_rate": self.v.copy(),
            "offsets": np.array([self.start, self.work]),
        }

    def set_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self.chain.set_state(state)
        self.cell_chain.set_state(state, "cell_chain")
        self.v = np.array(state["strain_rate"])
        self.start, self.work = (float(x) for x in state["offsets"])


class CellRescaling:
    r"""Stochastic cell rescaling of the volume, with Bussi's thermostat for the velocities.

    With :math:`\lambda = \sqrt V` the noise is additive,

    .. math:: d\lambda = \frac{\beta\lambda}{2\tau_p}
        \left(P_\mathrm{int} - P_0 + \frac{k_B T}{2V}\right) dt
        + \sqrt{\frac{k_B T \beta}{2\tau_p}}\; dW

    where :math:`\beta` is an estimate of the isothermal compressibility; positions scale with the
    cell and momenta against it (Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), eq. 8). The
    volume moves once in `INTERVAL` steps, over the time of these steps, because each move costs a
    force call of its own; the thermostat acts at every step. What the finite step of the volume
    costs in detailed balance, :math:`k_B T \ln` of the ratio of forward and backward probability,
    enters the heat, so that the conserved energy shows it.

    Parameters
    ----------
    dynamics : StochasticRescaling
        Velocity Verlet with Bussi's thermostat, on the atoms.
    pressure : float
        P_0, eV/Å³.
    tau : float
        τ_p, ASE's unit of time.
    compressibility : float
        β, Å³/eV.
    """

    INTERVAL = 10

    def __init__(
        self, dynamics: StochasticRescaling, *, pressure: float, tau: float, compressibility: float
    ) -> None:
        self.dynamics = dynamics
        self.atoms: Atoms = dynamics.atoms
        self.pressure = pressure
        self.mobility = compressibility / tau
        self.since = 0
        self.given = 0.0

    def step(self) -> None:
        """One step; every tenth is followed by a move of the volume."""
        self.dynamics.step()
        self.since += 1
        if self.since == self.INTERVAL:
            self.since = 0
            self._rescale(self.INTERVAL * self.dynamics.dt)

    def _rescale(self, dt: float) -> None:
        atoms, kT, m = self.atoms, self.dynamics.temp, self.mobility
        volume = atoms.get_volume()
        root = np.sqrt(volume)
        rate = self._rate(root)
        change = rate * dt + np.sqrt(0.5 * kT * m * dt) * self.dynamics.rng.standard_normal()
        # a move of more than a tenth of the volume is no small step of an equation of motion
        if not abs(change) < 0.05 * root:
            raise ValueError(
                f"npt-scr would change the volume by {200 * change / root:.0f} % in one move "
                f"(internal pressure {self._internal() / units.GPa:.3g} GPa); relax the cell "
                "first, or choose a longer pressure_tau or a smaller compressibility"
            )
        new = root + change
        scale = float((new / root) ** (2 / 3))
        atoms.set_momenta(atoms.get_momenta() / scale)
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=False)
        atoms.set_positions(atoms.positions * scale)
        back = self._rate(new)
        # log of forward over backward probability of the step, times kT
        bias = (change * (rate + back) + 0.5 * dt * (back**2 - rate**2)) * 2.0 / m
        self.given -= self.pressure * (new**2 - volume) - kT * np.log(new / root) + bias

    def _internal(self) -> float:
        atoms = self.atoms
        stress = atoms.get_stress(voigt=False)
        kinetic = 2.0 * atoms.get_kinetic_energy() / (3.0 * atoms.get_volume())
        return float(kinetic - np.trace(stress) / 3.0)

    def _rate(self, root: float) -> float:
        excess = self._internal() - self.pressure + 0.5 * self.dynamics.temp / root**2
        return float(0.5 * self.mobility * root * excess)

    @property
    def heat(self) -> float:
        """Energy that thermostat and barostat have given to the atoms so far, eV."""
        return self.dynamics.heat + self.given

    def set_target(self, temperature: float, pressure: float) -> None:
        """Temperature in K, pressure in eV/Å³."""
        self.dynamics.set_target(temperature, pressure)
        self.pressure = pressure

    def state(self) -> State:
        """The heat of both, and the steps since the volume moved."""
        return {
            **self.dynamics.state(),
            "given": np.array(self.given),
            "since": np.array(float(self.since)),
        }

    def set_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self.dynamics.set_state(state)
        self.given = float(state["given"])
        self.since = int(state["since"])
