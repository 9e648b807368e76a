r"""Monte Carlo swaps of two atoms of different species, for the chemical order of alloys.

Diffusion takes longer than any simulation; a swap jumps over its barriers. Two unlike atoms are
drawn at random and exchange their places; the move is accepted with probability
:math:`\min(1, e^{-\Delta E / k_B T})` (Metropolis et al., J. Chem. Phys. 21, 1087 (1953)), which
keeps the canonical distribution, and at constant pressure the isothermal-isobaric one, since the
volume stays.

Index k of a trajectory stays at its site: what moves is species, mass, momentum, magnetic moment
and charge. Kinetic energy and total momentum do not change.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

#: Per-atom arrays that go with an atom when it changes its place.
CARRIED = ("numbers", "masses", "momenta", "initial_magmoms", "initial_charges")


class SwapMoves:
    """Swap moves on the atoms that they were made for.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator and momenta.
    rng : numpy.random.Generator

    Attributes
    ----------
    attempts, accepted : int
        Counts so far.
    heat : float
        Energy that accepted moves have given to the atoms, eV.
    """

    def __init__(self, atoms: Atoms, rng: np.random.Generator) -> None:
        if atoms.constraints:
            raise ValueError("swap moves need free atoms, but the structure has constraints")
        if len(np.unique(atoms.numbers)) < 2:
            raise ValueError(
                f"swap moves exchange two species, but {atoms.get_chemical_formula()} has one"
            )
        self.atoms = atoms
        self.rng = rng
        self.attempts = 0
        self.accepted = 0
        self.heat = 0.0

    @property
    def acceptance(self) -> float:
        """Accepted part of all attempts; NaN before the first."""
        return self.accepted / self.attempts if self.attempts else float("nan")

    def run(self, attempts: int, kT: float) -> None:
        """Try `attempts` swaps at a temperature of `kT` in eV."""
        energy = float(self.atoms.get_potential_energy())
        for _ in range(attempts):
            i, j = self._unlike_pair()
            self._exchange(i, j)
            change = float(self.atoms.get_potential_energy()) - energy
            if not np.isfinite(change):
                raise ValueError(f"the energy after a swap of atoms {i} and {j} is not finite")
            self.attempts += 1
            # drawn for every attempt, so that the noise does not depend on the outcome
            threshold = self.rng.random()
            if change <= 0.0 or (kT > 0.0 and threshold < np.exp(-change / kT)):
                self.accepted += 1
                self.heat += change
                energy += change
            else:
                self._exchange(i, j)

    def _unlike_pair(self) -> tuple[int, int]:
        """Uniform over the pairs of different species, whose number no swap changes."""
        while True:
            i, j = (int(k) for k in self.rng.integers(len(self.atoms), size=2))
            if self.atoms.numbers[i] != self.atoms.numbers[j]:
                return i, j

    def _exchange(self, i: int, j: int) -> None:
        for name in CARRIED:
            if name in self.atoms.arrays:
                array = self.atoms.arrays[name]
                array[[i, j]] = array[[j, i]]

    def state(self) -> dict[str, np.ndarray]:
        """Counts and heat."""
        return {"swaps": np.array([self.attempts, self.accepted, self.heat])}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `state` returned."""
        attempts, accepted, self.heat = (float(x) for x in state["swaps"])
        self.attempts, self.accepted = int(attempts), int(accepted)
