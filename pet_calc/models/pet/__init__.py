"""PET, the Point Edge Transformer."""

from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.model import PET

__all__ = ["PET", "PETConfig"]
