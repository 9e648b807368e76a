"""ASE calculators."""

from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.choice import calculator_for
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.pet import PETCalculator

__all__ = ["CrystalformerCalculator", "ModelCalculator", "PETCalculator", "calculator_for"]
