"""Quantities computed from trajectories of any origin, with error bars.

>>> from ase.io import read
>>> from pet_calc.workflows.observables import AnalysisConfig, analyze
>>> result = analyze(read("trajectory.traj", ":"), AnalysisConfig(interval=10.0))
>>> result.value("density")

Each observable is a function of its own, over frames (``ase.Atoms``) or over their unwrapped
motion; `analyze` picks those that make sense for a trajectory and gathers their results.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.workflows.observables.analysis import (
        OBSERVABLES,
        Analysis,
        Quantity,
        analyze,
        default_observables,
    )
    from pet_calc.workflows.observables.config import WATER_VISCOSITY, AnalysisConfig
    from pet_calc.workflows.observables.diffusion import (
        WATER_DIFFUSION,
        Diffusion,
        cube_edge,
        finite_size_correction,
        mean_square_displacement,
        self_diffusion,
        site_displacement,
    )
    from pet_calc.workflows.observables.hydrogen_bonds import HydrogenBonds, frame_hydrogen_bonds
    from pet_calc.workflows.observables.motion import Motion, unwrap
    from pet_calc.workflows.observables.order import (
        Shells,
        WarrenCowley,
        crystal_shells,
        distance_shells,
        mean_structure,
        warren_cowley,
        warren_cowley_series,
    )
    from pet_calc.workflows.observables.rdf import Peak, RadialDistribution, first_peak, partial_rdf
    from pet_calc.workflows.observables.thermodynamics import (
        cubic_lattice_constant,
        density,
        heat_capacity,
        kinetic_temperature,
        thermal_expansion,
    )
    from pet_calc.workflows.observables.vibrations import VibrationalSpectrum, vibrational_spectrum
    from pet_calc.workflows.observables.water import (
        SKINNER_2013,
        ExperimentalPeak,
        WaterStructure,
        water_structure,
    )

__all__ = [
    "OBSERVABLES",
    "SKINNER_2013",
    "WATER_DIFFUSION",
    "WATER_VISCOSITY",
    "Analysis",
    "AnalysisConfig",
    "Diffusion",
    "ExperimentalPeak",
    "HydrogenBonds",
    "Motion",
    "Peak",
    "Quantity",
    "RadialDistribution",
    "Shells",
    "VibrationalSpectrum",
    "WarrenCowley",
    "WaterStructure",
    "analyze",
    "crystal_shells",
    "cube_edge",
    "cubic_lattice_constant",
    "default_observables",
    "density",
    "distance_shells",
    "finite_size_correction",
    "first_peak",
    "frame_hydrogen_bonds",
    "heat_capacity",
    "kinetic_temperature",
    "mean_square_displacement",
    "mean_structure",
    "partial_rdf",
    "self_diffusion",
    "site_displacement",
    "thermal_expansion",
    "unwrap",
    "vibrational_spectrum",
    "warren_cowley",
    "warren_cowley_series",
    "water_structure",
]

__getattr__ = lazy_names(
    __name__,
    "config",
    "diffusion",
    "hydrogen_bonds",
    "motion",
    "order",
    "rdf",
    "thermodynamics",
    "vibrations",
    "water",
    "analysis",
)
