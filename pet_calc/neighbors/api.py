"""The neighbour list of a batch of systems, with reverse edges."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import Edges, System
from pet_calc.neighbors.device import checked_edges, device_edges, kernels_wanted
from pet_calc.neighbors.vesin_cpu import vesin_half_list

Backend = Literal["auto", "vesin", "triton", "nvalchemi"]


def neighbor_list(system: System, cutoff: float, *, backend: Backend = "auto") -> Edges:
    """All pairs closer than `cutoff`, as directed edges sorted by centre.

    Periodic images are included, also those of the centre itself, for every mix of periodic
    directions and for cells smaller than the cutoff.

    Parameters
    ----------
    system : System
        One or several structures; atoms of different structures are never neighbours.
    cutoff : float
        Radius in Å; pairs with r < cutoff are listed.
    backend : {"auto", "vesin", "triton", "nvalchemi"}
        "auto" is vesin on the CPU; with ``PET_CALC_TRITON=1`` in the environment it is the Triton
        kernels for systems on CUDA devices, where they can run and agree with vesin at first use
        (`pet_calc.neighbors.device`). A backend named here is used or raises: "triton" needs a
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
    if backend == "auto" and kernels_wanted(system):
        check_cells(system)
        edges = checked_edges(system, cutoff, vesin_list)
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

    They are sorted by centre, then neighbour, then cell shift. Sums over neighbours are thus taken
    in an order that depends on the edges alone, not on when and with what skin the list was built:
    a simulation that is continued computes, bit for bit, what it would have computed.

    Writing each pair in both directions makes the reverse edge known without a search.
    """
    n = len(i)
    centre = np.concatenate([i, j])
    neighbour = np.concatenate([j, i])
    both = np.concatenate([shifts, -shifts])
    partner = np.concatenate([np.arange(n, 2 * n), np.arange(n)])
    order = edge_order(centre, neighbour, both)
    rank = np.empty_like(order)
    rank[order] = np.arange(2 * n)
    return Edges(
        edge_index=torch.from_numpy(np.stack([centre[order], neighbour[order]])).to(device),
        cell_shifts=torch.from_numpy(both[order]).to(device),
        reverse_edge=torch.from_numpy(rank[partner[order]]).to(device),
    )


def edge_order(
    centre: NDArray[np.int64], neighbour: NDArray[np.int64], shifts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Permutation that sorts edges by centre, neighbour and cell shift."""
    if len(centre) == 0:
        return np.zeros(0, dtype=np.intp)
    lowest = shifts.min(axis=0)
    ranges = [int(neighbour.max()) + 1, *(int(x) + 1 for x in shifts.max(axis=0) - lowest)]
    if math.prod(ranges) * (int(centre.max()) + 1) >= 2**63:
        return np.lexsort((*shifts.T[::-1], neighbour, centre))
    # one integer per edge sorts several times faster than five columns
    key = centre
    for column, size in zip((neighbour, *(shifts - lowest).T), ranges, strict=True):
        key = key * size + column
    return np.argsort(key)


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
