"""Energy models and the one place where energies are differentiated."""

from pet_calc.models.derivatives import evaluate
from pet_calc.models.interface import EnergyModel, Results
from pet_calc.models.lennard_jones import LennardJones

__all__ = ["EnergyModel", "LennardJones", "Results", "evaluate"]
