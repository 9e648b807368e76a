"""From the vector of an edge to its cutoff weight and the first linear map of its token."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from pet_calc.kernels.edge_embedding import reference
from pet_calc.kernels.edge_embedding.reference import Encoding, edge_geometry
from pet_calc.kernels.operation import beyond, operation

__all__ = ["Encoding", "edge_embedding", "edge_geometry", "fused_embedding"]

#: Rows of the matrix that one program holds.
MOST_ROWS: Final = 128


def limit(
    vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
    table: Tensor, matrix: Tensor, encoding: Encoding,
) -> str | None:  # fmt: skip
    """Why the Triton kernels cannot take such edges; None if they can."""
    return beyond(MOST_ROWS, len(matrix), "numbers of a geometry")


edge_embedding = operation(
    "edge embedding", "pet_calc.kernels.edge_embedding.triton:edge_embedding", limit
)(reference.edge_embedding)


def fused_embedding(vectors: Tensor, rows: int) -> bool:
    """Whether `edge_embedding` is one kernel for vectors and a geometry of so many numbers."""
    return edge_embedding.applies(vectors, lambda: beyond(MOST_ROWS, rows, "numbers of a geometry"))
