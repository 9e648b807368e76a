"""The calculator of a potential, whatever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pet_calc import pretrained
from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.pet import PETCalculator


def calculator_for(
    model: str | Path | Sequence[str | Path] = "auto",
    *,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> ModelCalculator:
    """The ASE calculator of a potential by name or path; "auto" is `PETCalculator`'s.

    Parameters
    ----------
    model : str or Path, or a sequence of these
        Several are a committee: their mean, and their spread as uncertainty.
    device, dtype : str, optional
        As of the calculators.
    **options
        Of `PETCalculator`; those that are None are left to it.

    Raises
    ------
    ValueError
        For an option that the potential's architecture does not have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    names = [model] if isinstance(model, str | Path) else list(model)
    others = [n for n in names if n != "auto" and architecture(n) == "crystalformer"]
    if not others:
        source = names[0] if len(names) == 1 else names
        return PETCalculator(source, device=device, dtype=dtype, **given)
    if len(names) > 1:
        raise ValueError(
            f"several potentials are a committee if all of them are PETs, but {others[0]} is a "
            "Crystalformer; name one"
        )
    if given:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in given)} concerns PETs only, but {others[0]} is a "
            "Crystalformer; leave it out"
        )
    return CrystalformerCalculator(others[0], device=device, dtype=dtype)


def architecture(model: str | Path) -> str:
    """Architecture of a potential by name or path."""
    return pretrained.resolve(model).architecture
