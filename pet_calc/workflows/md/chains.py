r"""The Nosé-Hoover chain: thermostats that thermostat each other.

With :math:`K` the kinetic energy of what is thermostatted, over :math:`n` degrees of freedom,

.. math:: \dot p = -v_1 p, \quad \dot\eta_k = v_k, \quad
   Q_1 \dot v_1 = 2K - n k_B T - Q_1 v_1 v_2, \quad
   Q_k \dot v_k = Q_{k-1} v_{k-1}^2 - k_B T - Q_k v_k v_{k+1}

with :math:`Q_1 = n k_B T \tau^2` and :math:`Q_{k>1} = k_B T \tau^2` (Martyna, Klein and Tuckerman,
J. Chem. Phys. 97, 2635 (1992)). The chain's energy
:math:`\sum_k \tfrac12 Q_k v_k^2 + n k_B T \eta_1 + k_B T \sum_{k>1} \eta_k` completes that of the
atoms to a conserved quantity.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Weights of the fourth-order composition (Yoshida, Phys. Lett. A 150, 262 (1990)).
YOSHIDA = (1 / (2 - 2 ** (1 / 3)), -(2 ** (1 / 3)) / (2 - 2 ** (1 / 3)), 1 / (2 - 2 ** (1 / 3)))


class NoseHooverChain:
    """A chain and its state.

    Parameters
    ----------
    n_dof : int
        Degrees of freedom that the first thermostat acts on.
    kT : float
        eV; may be changed between steps, the masses follow.
    tau : float
        Time constant in ASE's unit of time.
    length : int
        Number of thermostats.
    """

    def __init__(self, n_dof: int, kT: float, tau: float, length: int = 3) -> None:
        self.n_dof = n_dof
        self.kT = kT
        self.tau = tau
        self.eta = np.zeros(length)
        self.v = np.zeros(length)

    @property
    def masses(self) -> Array:
        """Q, shape (length,), eV times ASE's unit of time squared."""
        counts = np.ones(len(self.v))
        counts[0] = self.n_dof
        return counts * self.kT * self.tau**2

    @property
    def energy(self) -> float:
        """Kinetic and potential energy of the chain, eV."""
        potential = self.n_dof * self.eta[0] + self.eta[1:].sum()
        return float(0.5 * (self.masses * self.v**2).sum() + self.kT * potential)

    def propagate(self, twice_kinetic: float, dt: float) -> float:
        """Advance the chain by `dt`, and say by what factor the momenta shrink or grow.

        Parameters
        ----------
        twice_kinetic : float
            2 K in eV before.
        dt : float
            ASE's unit of time.

        Raises
        ------
        ValueError
            If the chain blows up, which happens when what it holds starts far too hot.
        """
        # plain numbers: arrays of three would cost ten times as much
        Q, v, eta = self.masses.tolist(), self.v.tolist(), self.eta.tolist()
        last = len(v) - 1
        scale = 1.0

        def kick(k: int, h: float) -> None:
            """Half a step of v_k, with the drag of its own thermostat around it."""
            drag = math.exp(-0.25 * h * v[k + 1]) if k < last else 1.0
            if k == 0:
                force = twice_kinetic * scale**2 - self.n_dof * self.kT
            else:
                force = Q[k - 1] * v[k - 1] ** 2 - self.kT
            v[k] = (v[k] * drag + 0.5 * h * force / Q[k]) * drag

        try:
            for weight in YOSHIDA:
                h = weight * dt
                for k in range(last, -1, -1):
                    kick(k, h)
                scale *= math.exp(-h * v[0])
                for k in range(last + 1):
                    eta[k] += h * v[k]
                for k in range(last + 1):
                    kick(k, h)
        except OverflowError as error:
            ratio = twice_kinetic / (self.n_dof * self.kT)
            raise ValueError(
                f"the Nosé-Hoover chain became unstable: what it holds has {ratio:.0f} times the "
                "kinetic energy of its temperature; begin nearer to equilibrium (relax, then "
                "nvt-langevin or npt-scr), change the target by a ramp, or choose longer time "
                "constants"
            ) from error
        self.v, self.eta = np.array(v), np.array(eta)
        return scale

    def state(self, prefix: str = "chain") -> dict[str, Array]:
        """Coordinates and velocities."""
        return {f"{prefix}_eta": self.eta.copy(), f"{prefix}_v": self.v.copy()}

    def set_state(self, state: dict[str, Array], prefix: str = "chain") -> None:
        """Continue from what `state` returned."""
        self.eta = np.array(state[f"{prefix}_eta"])
        self.v = np.array(state[f"{prefix}_v"])
