"""A pytest plugin that puts PETCalculator in the place of EMT: ``pytest -p calculators.stand_in``.

ASE's suite has no entry for calculators of other packages, and its general tests ask for EMT by
name. They then run with a small PET of random weights that covers EMT's elements, on a repulsive
wall and with a well: random weights alone bind nothing. What the tests of optimizers, dynamics,
filters, constraints and bands claim holds for any smooth potential.
"""

import os

import ase.calculators.emt
import torch
from ase.data import atomic_numbers
from calculators.small_potentials import small_pet

from pet_calc import PETCalculator

ELEMENTS = ("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
CALLS = os.environ.get("PET_CALC_STAND_IN_CALLS")
