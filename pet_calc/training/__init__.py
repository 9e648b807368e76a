"""Training of potentials on first-principles data."""

from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import train

__all__ = ["TrainConfig", "train"]
