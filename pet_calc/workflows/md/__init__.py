"""Molecular dynamics with any ASE calculator.

>>> from pet_calc.workflows.md import MDConfig, run_md
>>> result = run_md(atoms, MDConfig(ensemble="nvt-langevin", steps=2000), "out")
>>> result.mean_temperature, result.drift

``velocities``, ``integrators``, ``chains``, ``barostats`` and ``swaps`` hold the physics,
``ensembles`` puts it together; ``log`` is the record of a run and its statistics, ``records`` its
files, ``checkpoint`` its state; ``run`` is the loop with its guards, ``simulation`` begins and ends
it, ``reports`` tells how far it has come, ``sampling`` tests an ensemble.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.md.config import ENSEMBLES, MDConfig
    from pet_calc.workflows.md.log import MDLog, MDSample
    from pet_calc.workflows.md.run import Observer
    from pet_calc.workflows.md.simulation import OUTPUT_FILES, MDResult, run_md

__all__ = [
    "ENSEMBLES",
    "OUTPUT_FILES",
    "MDConfig",
    "MDLog",
    "MDResult",
    "MDSample",
    "Observer",
    "run_md",
]

__getattr__ = lazy_names(__name__, "config", "log", "run", "simulation")
