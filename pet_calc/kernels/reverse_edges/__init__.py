"""Exchange of the values of every edge and its reverse edge."""

from pet_calc.kernels.reverse_edges.analytic import reverse_edges

__all__ = ["reverse_edges"]
