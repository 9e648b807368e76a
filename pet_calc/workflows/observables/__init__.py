"""Quantities computed from trajectories of any origin, with error bars."""

from pet_calc.workflows.observables.rdf import Peak, RadialDistribution, first_peak, partial_rdf
from pet_calc.workflows.observables.water import (
    SKINNER_2013,
    ExperimentalPeak,
    WaterStructure,
    water_structure,
)

__all__ = [
    "SKINNER_2013",
    "ExperimentalPeak",
    "Peak",
    "RadialDistribution",
    "WaterStructure",
    "first_peak",
    "partial_rdf",
    "water_structure",
]
