"""The potentials behind the suite of ASE are those that ASE's tests were written for."""

import ase.calculators.lj
import ase.calculators.morse
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase_suite.effective_medium import EffectiveMediumCalculator
from ase_suite.pairs import LennardJonesCalculator, MorseCalculator


def alloy(pbc):
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.symbols[::3] = "Au"
    atoms.symbols[1::5] = "Al"
    atoms.set_cell(atoms.cell.array @ [[1, 0.05, 0], [0, 1.02, -0.03], [0, 0, 1]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.pbc = pbc
    return atoms


STRUCTURES = {
    "alloy": alloy(True),
    "film": alloy([True, True, False]),
    "primitive": bulk("Pt"),
    "slab": fcc111("Ag", (2, 2, 3), vacuum=6.0),
    "molecule": molecule("CH3OH"),
    "atom": Atoms("Ni"),
    "apart": Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [30, 0, 0]]),
}
LJ = {"sigma": 2.3, "epsilon": 0.2}
MORSE = {"r0": 2.6, "epsilon": 0.3, "rho0": 5.0}
PAIRS = {
    "EMT": (EffectiveMediumCalculator(), EMT()),
    "asap3": (EffectiveMediumCalculator(asap_cutoff=True), EMT(asap_cutoff=True)),
    "LennardJones": (LennardJonesCalculator(**LJ), ase.calculators.lj.LennardJones(**LJ)),
    "Morse": (MorseCalculator(**MORSE), ase.calculators.morse.MorsePotential(**MORSE)),
}


def results(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    found = [atoms.get_potential_energies(), atoms.get_forces()]
    return [*found, atoms.get_stress()] if atoms.pbc.all() else found


@pytest.mark.parametrize("potential", PAIRS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_agrees_with_ase(name, potential):
    ours, theirs = (results(STRUCTURES[name], calculator) for calculator in PAIRS[potential])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-10)


def test_another_cutoff_is_seen():
    """The positive control: the two cutoffs of EMT differ by far more than the tolerance."""
    ours, _ = PAIRS["EMT"]
    _, theirs = PAIRS["asap3"]
    for a, b in zip(*(results(STRUCTURES["alloy"], c) for c in (ours, theirs)), strict=True):
        assert np.abs(a - b).max() > 1e-6
