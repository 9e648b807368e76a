"""Geometry: batched systems, cells, strain, the edge graph and the neighbor matrix."""

from pet_calc.geometry.cell import voigt_from_matrix, volume
from pet_calc.geometry.gaussians import gaussians
from pet_calc.geometry.graph import Bucket, Edges, NodeEdgeLayout, edge_vectors, node_edge_layout
from pet_calc.geometry.harmonics import spherical_harmonics
from pet_calc.geometry.neighbor_matrix import NeighborMatrix
from pet_calc.geometry.system import System

__all__ = [
    "Bucket",
    "Edges",
    "NeighborMatrix",
    "NodeEdgeLayout",
    "System",
    "edge_vectors",
    "gaussians",
    "node_edge_layout",
    "spherical_harmonics",
    "voigt_from_matrix",
    "volume",
]
