"""Values of edges at the slots of a padded layout."""

from pet_calc.kernels.edge_slots.analytic import edges_to_slots

__all__ = ["edges_to_slots"]
