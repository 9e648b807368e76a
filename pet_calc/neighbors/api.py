"""The neighbor list of a batch of systems, with reverse edges."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import Edges, System
from pet_calc.neighbors.device import device_edges, triton_edges, triton_selected
from pet_calc.neighbors.vesin_cpu import vesin_half_list

Backend = Literal["auto", "vesin", "triton", "nvalchemi"]

#: Shapes of the tensors of `Edges` where there is no edge.
NO_EDGES = ((2, 0), (0, 3), (0,))


def neighbor_list(system: System, cutoff: float, *, backend: Backend = "auto") -> Edges:
    """All pairs closer than `cutoff`, as directed edges sorted by center.

    Periodic images are included, also those of the center itself, for every mix of periodic
    directions and for cells smaller than the cutoff.

    Parameters
    ----------
    system : System
        One or several structures; atoms of different structures are never neighbors.
    cutoff : float
        Radius in Å; pairs with r < cutoff are listed.
    backend : {"auto", "vesin", "triton", "nvalchemi"}
        "auto" is vesin on the CPU, or the Triton kernels where these are in force and can run
        (`pet_calc.kernels.operation`). A backend named here is used or raises: "triton" needs a
        CUDA device, "nvalchemi" the optional package nvalchemi-toolkit-ops.

    Raises
    ------
    InvalidStructureError
        For positions or cells that are not finite, and for periodic directions whose lattice
        vectors do not span them.
    """
    if not np.isfinite(cutoff) or cutoff <= 0:
        raise ValueError(f"`cutoff` must be a positive number of Å, got {cutoff}")
    if backend not in ("auto", "vesin", "triton", "nvalchemi"):
        raise ValueError(
            f"`backend` must be 'auto', 'vesin', 'triton' or 'nvalchemi', got {backend!r}"
        )
    edges = None
    if backend == "auto" and triton_selected(system):
        check_cells(system)
        edges = triton_edges(system, cutoff)
    elif backend in ("triton", "nvalchemi"):
        check_cells(system)
        edges = device_edges(system, cutoff, backend)
    return vesin_list(system, cutoff) if edges is None else edges


def vesin_list(system: System, cutoff: float) -> Edges:
    """The list of a batch through vesin, on the CPU; see `neighbor_list`."""
    device = system.device
    positions = system.positions.detach().cpu().numpy().astype(np.float64, copy=False)
    cells = system.cell.detach().cpu().numpy().astype(np.float64, copy=False)
    pbc = system.pbc.cpu().numpy()
    index = system.system_index.cpu().numpy()
    check_finite(positions, cells)
    starts = np.searchsorted(index, np.arange(len(cells) + 1))

    halves = []
    for s, (begin, end) in enumerate(itertools.pairwise(starts)):
        check_cell(cells[s], pbc[s], s)
        i, j, shifts = vesin_half_list(positions[begin:end], cells[s], pbc[s], cutoff)
        halves.append((i + begin, j + begin, shifts))
    i = np.concatenate([h[0] for h in halves])
    j = np.concatenate([h[1] for h in halves])
    shifts = np.concatenate([h[2] for h in halves])
    return edges_from_half_list(i, j, shifts, device)


def edges_from_half_list(
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    shifts: NDArray[np.int64],
    device: torch.device | str = "cpu",
) -> Edges:
    """Directed edges from pairs that are each listed once, in an order of their own.

    They are sorted by center, then neighbor, then cell shift. Sums over neighbors are thus taken
    in an order that depends on the edges alone, not on when and with what skin the list was built:
    a simulation that is continued computes, bit for bit, what it would have computed.

    Writing each pair in both directions makes the reverse edge known without a search.
    """
    n = len(i)
    if n == 0:
        return Edges(*(torch.zeros(s, dtype=torch.int64, device=device) for s in NO_EDGES))
    # half the memory to move, which is what takes the time here
    kind: type[np.integer] = np.int32 if 2 * n < 2**31 else np.int64
    center = np.concatenate([i, j]).astype(kind)
    neighbor = np.concatenate([j, i]).astype(kind)
    distinct, half = numbered_shifts(shifts)
    code = np.concatenate([half, len(distinct) - 1 - half]).astype(kind)
    order = edge_order(center, neighbor, code)
    rank = np.empty_like(order)
    rank[order] = np.arange(2 * n, dtype=kind)
    partner = np.where(order < n, order + n, order - n)
    index = np.empty((2, 2 * n), dtype=np.int64)
    index[0], index[1] = center[order], neighbor[order]
    return Edges(
        edge_index=torch.from_numpy(index).to(device),
        cell_shifts=torch.from_numpy(np.take(distinct, code[order], axis=0)).to(device),
        reverse_edge=torch.from_numpy(rank[partner].astype(np.int64)).to(device),
    )


def numbered_shifts(
    shifts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted table of the cell shifts and their negatives, and the row of each shift in it.

    The negative of row k is row -1 - k.
    """
    largest = np.array([max(-x.min(), x.max()) for x in shifts.T])
    if np.prod(2.0 * largest + 1.0) > len(shifts) + 1000.0:
        # atoms far outside their cell: not all shifts in between fit into a table
        table, row = np.unique(np.concatenate([shifts, -shifts]), axis=0, return_inverse=True)
        return table, row.reshape(-1)[: len(shifts)]
    x, y, z = (np.arange(-m, m + 1) for m in largest)
    table = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    row = shifts[:, 0] + largest[0]
    for column, m in zip(shifts.T[1:], largest[1:], strict=True):
        row *= 2 * m + 1
        row += column + m
    return table, row


def edge_order(*keys: NDArray[Any]) -> NDArray[Any]:
    """Permutation that sorts by some columns of small integers, the first above the next.

    Sorting by counting, from the last column to the first, takes time in proportion to the number
    of edges, and a tenth of what sorting by comparison takes.
    """
    *others, last = keys
    order = counted(last)
    for key in reversed(others):
        order = order[counted(key[order])]
    return order


def counted(keys: NDArray[Any]) -> NDArray[Any]:
    """Permutation that sorts small integers, equal ones in the order that they have.

    Transposing a sparse matrix of one row does this in one pass, in compiled code.
    """
    n, kind = len(keys), keys.dtype
    row = csr_array(
        (np.arange(n, dtype=kind), keys, np.array([0, n], dtype=kind)),
        shape=(1, int(keys.max()) + 1),
    )
    permutation: NDArray[Any] = row.tocsc().data
    return permutation


def check_cells(system: System) -> None:
    """Refuse cells as `check_finite` and `check_cell` do."""
    cells = system.cell.detach().cpu().numpy().astype(np.float64, copy=False)
    check_finite(np.zeros((0, 3)), cells)
    for s, (cell, pbc) in enumerate(zip(cells, system.pbc.cpu().numpy(), strict=True)):
        check_cell(cell, pbc, s)


def check_finite(positions: NDArray[np.float64], cells: NDArray[np.float64]) -> None:
    """Refuse positions or cells with NaN or infinity, naming the first atom."""
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=-1))
    if len(bad):
        raise InvalidStructureError(
            f"positions must be finite, but atom {bad[0]} is at {positions[bad[0]].tolist()} "
            f"({len(bad)} such atom(s)); check the input file or the step that produced it"
        )
    if not np.isfinite(cells).all():
        raise InvalidStructureError("the cell must be finite, but it holds NaN or infinity")


def check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_], system: int) -> None:
    """Refuse a cell whose periodic lattice vectors are zero or linearly dependent."""
    if not pbc.any():
        return
    periodic = cell[pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths == 0).any():
        raise InvalidStructureError(
            f"every periodic direction needs a lattice vector, but system {system} has "
            f"pbc={pbc.tolist()} with a zero vector; set the cell or turn the periodicity off"
        )
    if np.linalg.svd(periodic / lengths[:, None], compute_uv=False).min() < 1e-8:
        raise InvalidStructureError(
            f"the periodic lattice vectors of system {system} are linearly dependent: "
            f"{periodic.tolist()}; check the cell"
        )
