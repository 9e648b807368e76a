"""Properties of crystals: graph networks that read one number per crystal, never an energy."""

from pet_calc.crystals.models.ensemble import PropertyEnsemble
from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig, crystal_graph
from pet_calc.crystals.models.heads import PotentialTerm, PropertyConfig, PropertyModel, Target

__all__ = [
    "CrystalGraph",
    "GraphConfig",
    "PotentialTerm",
    "PropertyConfig",
    "PropertyEnsemble",
    "PropertyModel",
    "Target",
    "crystal_graph",
]
