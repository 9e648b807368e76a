"""Small systems and deliberately broken calculators."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

SPRING = 2.0  # eV/Å²


class Einstein(Calculator):
    """Every atom on a spring of its own; `spring` < 0 drives the atoms apart."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, sites, spring=SPRING):
        super().__init__()
        self.sites = np.array(sites)
        self.spring = spring
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        d = self.atoms.positions - self.sites
        self.results = {
            "energy": 0.5 * self.spring * float((d**2).sum()),
            "forces": -self.spring * d,
        }


class NotANumber(Einstein):
    """From call `after` on, one force is NaN."""

    def __init__(self, sites, after, atom=3):
        super().__init__(sites)
        self.after, self.atom = after, atom

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.calls > self.after:
            self.results["forces"][self.atom, 1] = np.nan


class Collapse(Einstein):
    """Pulls atoms 0 and 1 into one another."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        d = self.atoms.positions[1] - self.atoms.positions[0]
        pull = 1.0 * d / np.linalg.norm(d)
        self.results["forces"][:2] = pull, -pull


class Fails(Einstein):
    """Raises from call `after` on."""

    def __init__(self, sites, after):
        super().__init__(sites)
        self.after = after

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.calls > self.after:
            raise RuntimeError("out of memory")


class Unphysical(EMT):
    """EMT whose forces are not the gradient of its energy."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = 1.02 * self.results["forces"]


def grid(n=3, spacing=4.0, symbol="Ar"):
    points = spacing * np.array(list(np.ndindex(n, n, n)), dtype=float)
    return Atoms(f"{symbol}{len(points)}", positions=points)


@pytest.fixture
def einstein():
    """27 argon atoms on springs, in the open."""
    atoms = grid()
    atoms.calc = Einstein(atoms.positions)
    return atoms


@pytest.fixture
def copper():
    """32 copper atoms, slightly displaced, with EMT."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=(32, 3))
    atoms.calc = EMT()
    return atoms


@pytest.fixture
def broken():
    """The broken calculators by name."""
    return {c.__name__: c for c in (Einstein, NotANumber, Collapse, Fails, Unphysical)}
