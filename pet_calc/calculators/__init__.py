"""ASE calculators."""

from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.loading import load_calculator
from pet_calc.calculators.pet import PETCalculator
from pet_calc.calculators.potential import PotentialCalculator

__all__ = [
    "CrystalformerCalculator",
    "ModelCalculator",
    "PETCalculator",
    "PotentialCalculator",
    "load_calculator",
]
