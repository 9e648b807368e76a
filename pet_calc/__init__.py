"""PET neural potentials as ASE calculators with smooth cutoffs.

>>> from pet_calc import PETCalculator, relax
>>> atoms.calc = PETCalculator()
>>> relax(atoms).energy

Importing the package is cheap: torch and ASE are loaded with the first use of a calculator or a
workflow. Every workflow is a function of a structure, which carries its calculator, and of a frozen
configuration; it calls `on_progress` as it advances and returns its results.
"""

from typing import TYPE_CHECKING

from pet_calc.errors import PetCalcError

if TYPE_CHECKING:
    from pet_calc.calculators import CrystalformerCalculator, PETCalculator, load_calculator
    from pet_calc.crystals import GenerateConfig, PredictConfig, generate, predict
    from pet_calc.workflows.guards.config import GuardConfig
    from pet_calc.workflows.md import MDConfig, run_md
    from pet_calc.workflows.mechanics import (
        ElasticConfig,
        EosConfig,
        NebConfig,
        elastic_constants,
        equation_of_state,
        minimum_energy_path,
    )
    from pet_calc.workflows.observables import AnalysisConfig, analyze
    from pet_calc.workflows.phonons import PhononConfig, QHAConfig, phonons, quasi_harmonic
    from pet_calc.workflows.progress import Progress, ProgressBar
    from pet_calc.workflows.relax import RelaxConfig, relax, relax_all

__version__ = "0.1.0"

__all__ = [
    "AnalysisConfig",
    "CrystalformerCalculator",
    "ElasticConfig",
    "EosConfig",
    "GenerateConfig",
    "GuardConfig",
    "MDConfig",
    "NebConfig",
    "PETCalculator",
    "PetCalcError",
    "PhononConfig",
    "PredictConfig",
    "Progress",
    "ProgressBar",
    "QHAConfig",
    "RelaxConfig",
    "__version__",
    "analyze",
    "elastic_constants",
    "equation_of_state",
    "generate",
    "load_calculator",
    "minimum_energy_path",
    "phonons",
    "predict",
    "quasi_harmonic",
    "relax",
    "relax_all",
    "run_md",
]

#: Where each name is found when it is first asked for. Configurations load neither torch nor ASE.
_HOMES = {
    "calculators": ("CrystalformerCalculator", "PETCalculator", "load_calculator"),
    "crystals": ("GenerateConfig", "PredictConfig", "generate", "predict"),
    "workflows.guards.config": ("GuardConfig",),
    "workflows.md": ("MDConfig", "run_md"),
    "workflows.mechanics": (
        *("ElasticConfig", "EosConfig", "NebConfig"),
        *("elastic_constants", "equation_of_state", "minimum_energy_path"),
    ),
    "workflows.observables": ("AnalysisConfig", "analyze"),
    "workflows.phonons": ("PhononConfig", "QHAConfig", "phonons", "quasi_harmonic"),
    "workflows.progress": ("Progress", "ProgressBar"),
    "workflows.relax": ("RelaxConfig", "relax", "relax_all"),
}


def __getattr__(name: str) -> object:
    """Load a public name from its module when it is first asked for."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"pet_calc.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
