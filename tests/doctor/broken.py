"""EMT with one thing wrong at a time."""

import time

import numpy as np
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from pet_calc.calculators.base import ModelCalculator
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.models import LennardJones


class Broken(EMT):
    """Results of EMT, changed by `alter`."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {k: np.copy(v) for k, v in self.results.items()}
        self.alter(self.results)

    def alter(self, results):
        raise NotImplementedError

    def add(self, results, energy, forces=0.0):
        for name in ("energy", "free_energy"):
            results[name] = results[name] + energy
        results["forces"] = results["forces"] + forces

    @property
    def centered(self):
        return self.atoms.positions - self.atoms.positions.mean(axis=0)


class ScaledForces(Broken):
    def alter(self, results):
        results["forces"] *= 1.02


class OneWrongForce(Broken):
    def alter(self, results):
        results["forces"][5, 1] += 0.3


class StressOfOppositeSign(Broken):
    def alter(self, results):
        if "stress" in results:
            results["stress"] *= -1.0


class StressInGPa(Broken):
    def alter(self, results):
        if "stress" in results:
            results["stress"] *= 160.2


class ShearsSwapped(Broken):
    """Voigt order xx yy zz xy yz xz."""

    def alter(self, results):
        if "stress" in results:
            results["stress"] = results["stress"][[0, 1, 2, 5, 3, 4]]


class Oriented(Broken):
    """The x axis is special; forces are consistent."""

    def alter(self, results):
        x = self.centered * [1.0, 0.0, 0.0]
        self.add(results, 0.05 * (x**2).sum(), -0.1 * x)


class Handed(Broken):
    """Tells a structure from its mirror image."""

    def alter(self, results):
        x = self.centered
        r2 = (x**2).sum(axis=1, keepdims=True) / 10.0
        moments = np.stack([(r2**k * x).sum(axis=0) for k in (1, 2, 3)])
        self.add(results, 1e5 * np.linalg.det(moments))


class FirstAtomIsSpecial(Broken):
    def alter(self, results):
        self.add(results, 0.1 * (self.centered[0] ** 2).sum())


class KnowsTheOrigin(Broken):
    def alter(self, results):
        self.add(results, 0.01 * self.atoms.positions.sum(), -0.01)


class ForgetsImages(Broken):
    """Uses positions as they are where nearest images are meant."""

    def alter(self, results):
        x = self.centered
        self.add(results, 0.01 * (x**2).sum(), -0.02 * x)


class JumpsAtCutoff(Broken):
    def alter(self, results):
        self.add(results, 0.005 * len(neighbor_list("i", self.atoms, 2.6)))


class Stale(EMT):
    """Never calculates again."""

    def calculation_required(self, atoms, properties):
        return not self.results

    def check_state(self, atoms, tol=1e-15):
        return [] if self.results else all_changes


class IgnoresTheCell(EMT):
    """Does not notice that the cell has changed, if nothing else has."""

    def check_state(self, atoms, tol=1e-15):
        return [c for c in super().check_state(atoms, tol) if c != "cell"]


class HandsOutItsBuffer(EMT):
    """Overwrites the array of forces that it gave away."""

    buffer = None

    def get_property(self, name, atoms=None, allow_calculation=True):
        value = super().get_property(name, atoms, allow_calculation)
        if name != "forces":
            return value
        if self.buffer is None or self.buffer.shape != value.shape:
            self.buffer = np.empty_like(value)
        self.buffer[:] = value
        return self.buffer


class Remembers(Broken):
    """Adds a trace of the calculation before."""

    last = 0.0

    def alter(self, results):
        own = float(results["energy"])
        self.add(results, 0.1 * self.last)
        self.last = own


class Swirls(Broken):
    """A force field with a curl: it drives the atoms round and heats them."""

    def alter(self, results):
        self.add(results, 0.0, 0.05 * np.cross([0.0, 0.0, 1.0], self.centered))


class NotANumber(Broken):
    def alter(self, results):
        results["forces"][2, 0] = np.nan


class Fails(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise RuntimeError("out of memory")


class Slow(Broken):
    def alter(self, results):
        time.sleep(0.02)


class Hungry(Broken):
    """Takes a megabyte per atom while it calculates."""

    def alter(self, results):
        np.ones((len(self.atoms), 1_000_000 // 8)).sum()


class Trained(EMT):
    """Knows where it comes from, and its error."""

    training_domain = TrainingDomain(("Cu",), {("Cu", "Cu"): 2.3}, (11.5, 12.5), 10)
    errors = (0.001, 0.05)  # eV/atom, eV/Å

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        n = len(self.atoms)
        self.results["energy_uncertainty"] = n * self.errors[0]
        self.results["forces_uncertainty"] = np.full(n, self.errors[1])


class LennardJonesCalculator(ModelCalculator):
    """A calculator of this package around a Lennard-Jones model."""

    dtype = "float64"

    def __init__(self, model=None):
        super().__init__(model or LennardJones((29,), epsilon=0.3, sigma=2.3))


class LeakyLennardJones(LennardJones):
    """The energy of an atom depends on all that are in the batch."""

    def energies(self, system, edges, vectors):
        energies = super().energies(system, edges, vectors)
        return energies + 1e-3 * energies.mean()
