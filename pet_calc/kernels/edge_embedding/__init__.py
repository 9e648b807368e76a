"""From the vector of an edge to its cutoff weight and the first linear map of its token."""

from pet_calc.kernels.edge_embedding.dispatch import edge_embedding, fused_embedding
from pet_calc.kernels.edge_embedding.reference import Encoding, edge_geometry

__all__ = ["Encoding", "edge_embedding", "edge_geometry", "fused_embedding"]
