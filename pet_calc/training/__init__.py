"""Training of potentials on first-principles data."""

from pet_calc.training.config import TrainConfig
from pet_calc.training.loop import train

__all__ = ["TrainConfig", "train"]
