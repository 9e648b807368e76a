"""The calculator of a potential, whatever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pet_calc import pretrained
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.pet import PETCalculator
from pet_calc.calculators.potential import PotentialCalculator


def load_calculator(
    model: str | Path | Sequence[str | Path] = "auto", **options: Any
) -> PotentialCalculator:
    """The ASE calculator of any potential.

    Parameters
    ----------
    model : str or Path, or a sequence of these
        Name of a shipped or published potential, or path of one. With "auto" the first calculation
        picks the shipped PET that was made for the elements present. Several are a committee: their
        mean, and their spread as uncertainty.
    **options
        Of `PETCalculator` or `CrystalformerCalculator`; those that are None keep their defaults.

    Returns
    -------
    PETCalculator or CrystalformerCalculator

    Raises
    ------
    PotentialNotFoundError
        If there is no such potential.
    ValueError
        For a committee of several architectures, and for an option that the potential's
        architecture does not have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    names = [model] if isinstance(model, str | Path) else list(model)
    others = [n for n in names if n != "auto" and architecture(n) == "crystalformer"]
    source = names[0] if len(names) == 1 else names
    if not others:
        return PETCalculator(source, **given)
    if len(others) < len(names):
        raise ValueError(
            f"the potentials of a committee must be of one architecture, but {others[0]} is a "
            f"Crystalformer and others are PETs"
        )
    foreign = sorted(given.keys() - {"device", "dtype", "skin", "precision", "kernels"})
    if foreign:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in foreign)} concerns PETs only, but {others[0]} is "
            f"a Crystalformer; leave it out"
        )
    return CrystalformerCalculator(source, **given)


def architecture(model: str | Path) -> str:
    """Architecture of a potential by name or path."""
    return pretrained.resolve(model).architecture
