"""Equation of state, elastic constants, minimum-energy paths.

>>> from pet_calc.workflows.mechanics import EosConfig, equation_of_state
>>> equation_of_state(atoms, EosConfig(points=7)).fit.B0
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.mechanics.config import ElasticConfig, EosConfig, NebConfig
    from pet_calc.workflows.mechanics.elastic import ElasticConstants, elastic_constants
    from pet_calc.workflows.mechanics.eos import BirchMurnaghan, EquationOfState, equation_of_state
    from pet_calc.workflows.mechanics.figures import eos_figure, neb_figure
    from pet_calc.workflows.mechanics.files import write_elastic, write_eos, write_neb
    from pet_calc.workflows.mechanics.neb import MinimumEnergyPath, minimum_energy_path

__all__ = [
    "BirchMurnaghan",
    "ElasticConfig",
    "ElasticConstants",
    "EosConfig",
    "EquationOfState",
    "MinimumEnergyPath",
    "NebConfig",
    "elastic_constants",
    "eos_figure",
    "equation_of_state",
    "minimum_energy_path",
    "neb_figure",
    "write_elastic",
    "write_eos",
    "write_neb",
]

__getattr__ = lazy_names(__name__, "config", "elastic", "eos", "neb", "figures", "files")
