"""Relaxation of positions and cells, of one structure or of many.

>>> from pet_calc.workflows.relax import RelaxConfig, relax
>>> atoms.calc = PETCalculator(dtype="float64")
>>> result = relax(atoms, RelaxConfig(cell="free", fmax=0.001))
>>> result.status, result.atoms
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.relax.batched import relax_batched
    from pet_calc.workflows.relax.config import RelaxConfig
    from pet_calc.workflows.relax.many import relax_all, why_not_batched, with_calculator
    from pet_calc.workflows.relax.result import Relaxation
    from pet_calc.workflows.relax.single import relax

__all__ = [
    "RelaxConfig",
    "Relaxation",
    "relax",
    "relax_all",
    "relax_batched",
    "why_not_batched",
    "with_calculator",
]

__getattr__ = lazy_names(__name__, "config", "result", "single", "batched", "many")
