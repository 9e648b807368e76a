"""PET neural potentials as ASE calculators with smooth cutoffs.

>>> from pet_calc import PETCalculator
>>> atoms.calc = PETCalculator()

Importing the package is cheap: torch and ASE are loaded with the first use of a calculator.
"""

from typing import TYPE_CHECKING, Any

from pet_calc.errors import PetCalcError

if TYPE_CHECKING:
    from pet_calc.calculators import CrystalformerCalculator, PETCalculator

__version__ = "0.1.0"

__all__ = ["CrystalformerCalculator", "PETCalculator", "PetCalcError", "__version__"]

_LAZY = {
    "CrystalformerCalculator": "pet_calc.calculators",
    "PETCalculator": "pet_calc.calculators",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
