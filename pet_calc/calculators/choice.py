"""The calculator of a potential, whatever its architecture."""

from __future__ import annotations

from pathlib import Path

from pet_calc import pretrained
from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.pet import PETCalculator


def calculator_for(
    model: str | Path = "auto", *, device: str | None = None, dtype: str | None = None
) -> ModelCalculator:
    """The ASE calculator of a potential by name or path; "auto" is `PETCalculator`'s.

    Parameters
    ----------
    model : str or Path
    device, dtype : str, optional
        As of the calculators.
    """
    if model != "auto" and pretrained.resolve(model).architecture == "crystalformer":
        return CrystalformerCalculator(model, device=device, dtype=dtype)
    return PETCalculator(model, device=device, dtype=dtype)
