"""ASE calculators."""

from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.pet import PETCalculator

__all__ = ["ModelCalculator", "PETCalculator"]
