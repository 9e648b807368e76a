"""Crystalformer: infinitely connected attention, as a smooth potential and as published."""

from pet_calc.models.crystalformer.config import CrystalformerConfig
from pet_calc.models.crystalformer.model import Crystalformer

__all__ = ["Crystalformer", "CrystalformerConfig"]
