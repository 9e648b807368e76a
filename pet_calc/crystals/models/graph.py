"""Graphs of crystals by nearest neighbors, as property models see them.

Of every atom, the k nearest periodic neighbors are kept with all that tie with the last of them,
so that the graph is the same for every choice of the cell and order of atoms. A graph can be
merged: atoms that no network with messages of distances and elements can tell apart become one
node that counts for all of them, and equal edges one edge. Sums and means weighted with the
multiplicities give the same numbers for a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_calc.errors import InvalidStructureError
from pet_calc.neighbors.api import check_cell, check_finite
from pet_calc.neighbors.vesin_cpu import vesin_half_list

#: Neighbors whose distances differ by less, in Å, are at the same distance.
TIE = 1e-2
#: Edges that are merged agree in length to this, in Å.
BIN = 5e-3


@dataclass(frozen=True)
class GraphConfig:
    """How a crystal becomes a graph.

    Attributes
    ----------
    neighbors : int
        k of the nearest neighbors; 0 for all within the cutoff.
    symmetric : bool
        Add the reverse of every edge where it is missing.
    keep_ties : bool
        Keep all neighbors as far as the k-th one; the original CGCNN cuts the list at k, so that
        its answer depends on the order of the atoms.
    cutoff : float, optional
        In Å; neighbors beyond it are dropped. None lists k neighbors however far they are.
    pad : float, optional
        The original CGCNN fills up lists shorter than k with the first atom of the crystal at this
        distance in Å.
    lattice_edges : {"none", "primitive", "given"}
        Edges of each atom to its own images along three lattice vectors and three diagonals of
        faces (Matformer): of the reduced primitive cell, or of the cell as it is given.
    repeat_images : bool
        The original Matformer counts edges between images of one atom twice.
    merge : bool
        Whether graphs may be merged: messages carry distances only.
    """

    neighbors: int = 12
    symmetric: bool = False
    keep_ties: bool = True
    cutoff: float | None = None
    pad: float | None = None
    lattice_edges: str = "none"
    repeat_images: bool = False
    merge: bool = True


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """One or several crystals as a graph.

    Attributes
    ----------
    numbers : Tensor, shape (n_nodes,), int64
        Atomic numbers.
    multiplicity : Tensor, shape (n_nodes,), float32
        Atoms that a node stands for.
    system_index : Tensor, shape (n_nodes,), int64
    n_systems : int
    edge_index : Tensor, shape (2, n_edges), int64
        Center i, neighbor j; sorted by center.
    distances : Tensor, shape (n_edges,), float64
        In Å.
    edge_multiplicity : Tensor, shape (n_edges,), float32
        Edges of the center that an edge stands for.
    vectors : Tensor, shape (n_edges, 3), float64, or None
        In Å, from center to neighbor; None of a merged graph.
    node_of_atom : Tensor, shape (n_atoms,), int64
        Where each atom went.
    """

    numbers: Tensor
    multiplicity: Tensor
    system_index: Tensor
    n_systems: int
    edge_index: Tensor
    distances: Tensor
    edge_multiplicity: Tensor
    vectors: Tensor | None
    node_of_atom: Tensor

    def pool(self, features: Tensor) -> Tensor:
        """Means over the atoms of each system, (n_systems, width), of features of nodes."""
        weight = self.multiplicity.to(features.dtype)
        total = features.new_zeros(self.n_systems, features.shape[1])
        total = total.index_add(0, self.system_index, features * weight[:, None])
        count = weight.new_zeros(self.n_systems).index_add(0, self.system_index, weight)
        return total / count[:, None]

    def gather(self, messages: Tensor) -> Tensor:
        """Sums over the edges of each center, (n_nodes, width), with their multiplicities."""
        weighted = messages * self.edge_multiplicity.to(messages.dtype)[:, None]
        total = messages.new_zeros(len(self.numbers), messages.shape[1])
        return total.index_add(0, self.edge_index[0], weighted)

    @property
    def edge_weight(self) -> Tensor:
        """Edges of the whole crystal that each edge stands for, (n_edges,)."""
        return self.edge_multiplicity * self.multiplicity[self.edge_index[0]]

    @staticmethod
    def concatenate(graphs: Sequence[CrystalGraph]) -> CrystalGraph:
        """One graph of several."""
        nodes = np.cumsum([0] + [len(g.numbers) for g in graphs])
        systems = np.cumsum([0] + [g.n_systems for g in graphs])
        whole = all(g.vectors is not None for g in graphs)
        return CrystalGraph(
            numbers=torch.cat([g.numbers for g in graphs]),
            multiplicity=torch.cat([g.multiplicity for g in graphs]),
            system_index=torch.cat(
                [g.system_index + int(s) for g, s in zip(graphs, systems, strict=False)]
            ),
            n_systems=int(systems[-1]),
            edge_index=torch.cat(
                [g.edge_index + int(n) for g, n in zip(graphs, nodes, strict=False)], dim=1
            ),
            distances=torch.cat([g.distances for g in graphs]),
            edge_multiplicity=torch.cat([g.edge_multiplicity for g in graphs]),
            vectors=torch.cat([g.vectors for g in graphs if g.vectors is not None])
            if whole
            else None,
            node_of_atom=torch.cat(
                [g.node_of_atom + int(n) for g, n in zip(graphs, nodes, strict=False)]
            ),
        )

    def to(self, dtype: torch.dtype) -> CrystalGraph:
        """The same with lengths of another type."""
        vectors = None if self.vectors is None else self.vectors.to(dtype)
        return replace(self, distances=self.distances.to(dtype), vectors=vectors)


def crystal_graph(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    config: GraphConfig,
    lattice: NDArray[np.float64] | None = None,
    *,
    merge: bool = False,
) -> CrystalGraph:
    """The graph of one crystal, periodic in three dimensions.

    Parameters
    ----------
    numbers : array, shape (n_atoms,)
        Atomic numbers.
    positions : array, shape (n_atoms, 3)
        In Å.
    cell : array, shape (3, 3)
        Rows are lattice vectors, in Å.
    config : GraphConfig
    lattice : array, shape (3, 3), optional
        The vectors of the lattice edges, where ``config.lattice_edges`` asks for these.
    merge : bool
        Merge the graph, as far as ``config.merge`` allows it: lengths are then rounded to `BIN`,
        which is good enough to train on.

    Raises
    ------
    InvalidStructureError
        For positions or cells that are not finite, cells without volume, atoms in one place, and
        no atoms at all.
    """
    if len(numbers) == 0:
        raise InvalidStructureError("a crystal must hold at least one atom, got none")
    check_finite(positions, cell[None])
    periodic = np.ones(3, dtype=bool)
    check_cell(cell, periodic, 0)
    center, neighbor, vectors, distances = nearest(positions, cell, config)
    if len(distances) and float(distances.min()) < 0.1:
        raise InvalidStructureError(
            f"atoms must not lie in one place, but two are {distances.min():.3f} Å apart; a "
            f"crystal with partly occupied sites has to be ordered first"
        )
    multiplicity = np.ones(len(center))
    if config.repeat_images:
        multiplicity[center == neighbor] = 2.0
    if config.lattice_edges != "none":
        if lattice is None:
            raise ValueError("`lattice` must be given for a graph with lattice edges")
        atoms, own = new_images(center, vectors, lattice, len(numbers))
        center = np.concatenate([center, atoms])
        neighbor = np.concatenate([neighbor, atoms])
        vectors = np.concatenate([vectors, own])
        distances = np.linalg.norm(vectors, axis=1)
        multiplicity = np.concatenate([multiplicity, np.ones(len(atoms))])
    order = np.argsort(center, kind="stable")
    center, neighbor, vectors = center[order], neighbor[order], vectors[order]
    distances, multiplicity = distances[order], multiplicity[order]
    if merge and config.merge and (np.bincount(center, minlength=len(numbers)) > 0).all():
        return merged(numbers, center, neighbor, distances, multiplicity)
    atoms = np.arange(len(numbers))
    return assemble(
        numbers, np.ones(len(atoms)), center, neighbor, distances, multiplicity, atoms, vectors
    )


def new_images(
    center: NDArray[np.int64],
    vectors: NDArray[np.float64],
    lattice: NDArray[np.float64],
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atoms and vectors of the lattice edges that are not among the edges yet.

    An edge along a lattice vector leads to an image of the atom itself. In a supercell it may be
    another atom by its number, but one with the same features.
    """
    atoms, found = [], []
    for image in lattice_images(lattice):
        same = np.linalg.norm(vectors - image, axis=1) < TIE
        absent = np.flatnonzero(np.bincount(center[same], minlength=n) == 0)
        atoms.append(absent)
        found.append(np.tile(image, (len(absent), 1)))
    return np.concatenate(atoms), np.concatenate(found)


def nearest(
    positions: NDArray[np.float64], cell: NDArray[np.float64], config: GraphConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Center, neighbor, vector and distance of the edges to the k nearest neighbors."""
    n, k = len(positions), config.neighbors
    periodic = np.ones(3, dtype=bool)
    volume = abs(float(np.linalg.det(cell)))
    # a sphere that holds twice as many atoms, were the density uniform
    radius = max(3.0, (2.0 * (k + 1) * volume / n / (4.0 / 3.0 * np.pi)) ** (1 / 3))
    if config.cutoff is not None:
        radius = min(radius, config.cutoff) if k else config.cutoff
    while True:
        i, j, shifts = vesin_half_list(positions, cell, periodic, radius)
        half = positions[j] - positions[i] + shifts @ cell
        center, neighbor = np.concatenate([i, j]), np.concatenate([j, i])
        vectors = np.concatenate([half, -half])
        reverse = np.roll(np.arange(2 * len(i)), len(i))
        distances = np.linalg.norm(vectors, axis=1)
        order = np.lexsort((distances, center))
        center, neighbor = center[order], neighbor[order]
        vectors, distances = vectors[order], distances[order]
        counts = np.bincount(center, minlength=n)
        begins = np.cumsum(counts) - counts
        last = np.full(n, np.inf)
        if k == 0:
            break
        enough = counts >= k
        last[enough] = distances[begins[enough] + k - 1]
        if float(last.max()) + TIE < radius or radius == config.cutoff:
            break
        radius *= 1.3
        if config.cutoff is not None:
            radius = min(radius, config.cutoff)
    if config.keep_ties:
        kept = distances <= last[center] + TIE
    else:
        kept = np.arange(len(center)) - begins[center] < k
    if config.symmetric:
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        kept |= kept[rank[reverse[order]]]
    center, neighbor = center[kept], neighbor[kept]
    vectors, distances = vectors[kept], distances[kept]
    if config.pad is not None:
        lacking = np.maximum(k - np.bincount(center, minlength=n), 0)
        extra = np.repeat(np.arange(n), lacking)
        center = np.concatenate([center, extra])
        neighbor = np.concatenate([neighbor, np.zeros_like(extra)])
        vectors = np.concatenate([vectors, np.tile([config.pad, 0.0, 0.0], (len(extra), 1))])
        distances = np.concatenate([distances, np.full(len(extra), config.pad)])
    return center, neighbor, vectors, distances


def lattice_images(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three lattice vectors and the three sums of two of them, in both directions: (12, 3)."""
    a, b, c = lattice
    half = np.stack([a, b, c, a + b, a + c, b + c])
    return np.concatenate([half, -half])


def merged(
    numbers: NDArray[np.int64],
    center: NDArray[np.int64],
    neighbor: NDArray[np.int64],
    distances: NDArray[np.float64],
    multiplicity: NDArray[np.float64],
) -> CrystalGraph:
    """The graph whose nodes are classes of atoms that color refinement cannot tell apart.

    Two atoms share a color if they are of one element and have equally many neighbors of each
    color at each distance; refined until nothing changes (Weisfeiler and Leman). Edges are sorted
    by center.
    """
    n = len(numbers)
    lengths = np.rint(distances / BIN).astype(np.uint64)
    weights = multiplicity.astype(np.uint64)
    begins = np.searchsorted(center, np.arange(n))
    colors = np.unique(numbers, return_inverse=True)[1].reshape(-1)
    count = int(colors.max()) + 1
    while True:
        keys = scrambled(lengths * np.uint64(1 << 20) + colors[neighbor].astype(np.uint64))
        sums = np.add.reduceat(keys * weights, begins) + scrambled(colors.astype(np.uint64))
        refined = np.unique(sums, return_inverse=True)[1].reshape(-1)
        found = int(refined.max()) + 1
        if found == count:
            break
        colors, count = refined, found
    first = np.unique(colors, return_index=True)[1]
    node_weight = np.bincount(colors).astype(float)
    position = np.full(n, -1)
    position[first] = np.arange(count)
    kept = position[center] >= 0
    i, j = position[center[kept]], colors[neighbor[kept]]
    triple = np.stack([i, j, lengths[kept].astype(np.int64)], axis=1)
    unique, inverse = np.unique(triple, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    total = np.bincount(inverse, weights=multiplicity[kept]).astype(np.float64)
    mean = np.bincount(inverse, weights=multiplicity[kept] * distances[kept]) / total
    return assemble(
        numbers[first], node_weight, unique[:, 0], unique[:, 1], mean, total, colors, None
    )


def scrambled(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of 64 bits (splitmix64), so that sums of hashes tell multisets apart."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def assemble(
    numbers: NDArray[np.int64],
    multiplicity: NDArray[np.float64],
    center: NDArray[np.int64],
    neighbor: NDArray[np.int64],
    distances: NDArray[np.float64],
    edge_multiplicity: NDArray[np.float64],
    node_of_atom: NDArray[np.int64],
    vectors: NDArray[np.float64] | None,
) -> CrystalGraph:
    """Arrays of one crystal as tensors."""
    return CrystalGraph(
        numbers=torch.from_numpy(numbers.astype(np.int64)),
        multiplicity=torch.from_numpy(multiplicity.astype(np.float32)),
        system_index=torch.zeros(len(numbers), dtype=torch.int64),
        n_systems=1,
        edge_index=torch.from_numpy(np.stack([center, neighbor]).astype(np.int64)),
        distances=torch.from_numpy(distances),
        edge_multiplicity=torch.from_numpy(edge_multiplicity.astype(np.float32)),
        vectors=None if vectors is None else torch.from_numpy(vectors),
        node_of_atom=torch.from_numpy(node_of_atom.astype(np.int64)),
    )
