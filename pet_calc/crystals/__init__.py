"""Crystals as products: their properties, and crystals of a formula.

>>> from pet_calc.crystals import PredictConfig, predict
>>> predict(atoms, PredictConfig(properties=("band_gap",)))["band_gap"][0].value
>>> from pet_calc.crystals import GenerateConfig, generate
>>> generate(GenerateConfig(formula="Cu3Au"), calculator).kept[0].atoms
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.crystals.generation.config import GenerateConfig
    from pet_calc.crystals.generation.pipeline import generate
    from pet_calc.crystals.properties.config import PredictConfig
    from pet_calc.crystals.properties.predictor import predict

__all__ = ["GenerateConfig", "PredictConfig", "generate", "predict"]

__getattr__ = lazy_names(
    __name__,
    "properties.config",
    "generation.config",
    "properties.predictor",
    "generation.pipeline",
)
