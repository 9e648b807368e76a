"""The same list on a GPU: in all pairs of small systems, in a list of cells of large ones.

====================  =====================  ================================================
kernel                one program            does
====================  =====================  ================================================
`lattice_kernel`      per system             reciprocal vectors, images, grid of cells
`wrap_kernel`         per block of atoms     wraps positions, counts the atoms of each cell
`tiles_kernel`        per atom               tests all atoms of its system in all images
`place_kernel`        per block of atoms     sorts atoms by cell (counting sort)
`cells_kernel`        per atom               tests the atoms of the cells around it
`sort_kernel`         per few atoms          sorts their neighbors, found in order of the cells
`finish_kernel`       per few atoms          shifts as given, and the reverse edges
====================  =====================  ================================================

A found neighbor is one integer, a key (`pet_calc.kernels.neighbor_matrix.reference`), by which
the rows are sorted: the result does not depend on the order in which cells were filled, and the
reverse edge is found by bisection in the row of the neighbor. Positions are float64 throughout,
as the reference decides distances. A system has as many cells as atoms at most, which bounds the
memory without looking at the positions: periodic directions have cells of at least one cutoff,
free ones repeat a few cells of one cutoff along the whole line, so that no box has to be found
around the atoms. Nothing waits for the device and no shape depends on the data.
"""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from pet_calc.geometry import NeighborMatrix
from pet_calc.kernels.neighbor_matrix.reference import ROUNDING
from pet_calc.kernels.neighbor_matrix.triton_lattice import lattice_kernel
from pet_calc.kernels.neighbor_matrix.triton_search import cells_kernel, tiles_kernel

#: A cell is longer than the cutoff by this part of it, more than rounding can bridge.
MARGIN: Final = 1e-6
#: Atoms of a program that treats each of them alone.
ATOMS: Final = 128
#: Candidates that a program tests at once.
TILE: Final = 128
#: Of these so many in each cell.
DEPTH: Final = 4
#: Slots, of one atom or several, that a program sorts or finishes at once.
SLOTS_AT_ONCE: Final = 256


@triton.jit
def along(x, y, z, reciprocal, cells, pbc, a, s, there, CUTOFF: tl.constexpr, MARGIN: tl.constexpr):
    """Lattice vectors to take off along direction `a`, and the cell of the wrapped atom."""
    bx = tl.load(reciprocal + 9 * s + 3 * a, mask=there, other=0.0)
    by = tl.load(reciprocal + 9 * s + 3 * a + 1, mask=there, other=0.0)
    bz = tl.load(reciprocal + 9 * s + 3 * a + 2, mask=there, other=0.0)
    periodic = tl.load(pbc + 3 * s + a, mask=there, other=0) != 0
    n = tl.load(cells + 9 * s + a, mask=there, other=1)
    m = n.to(tl.float64)
    fractional = x * bx + y * by + z * bz
    wrap = tl.where(periodic, tl.floor(fractional), 0.0)
    inside = tl.floor((fractional - wrap) * m)
    line = tl.floor(fractional / (CUTOFF * (1.0 + MARGIN)))
    place = tl.where(periodic, inside, line - m * tl.floor(line / m))
    # NaN, too, is somewhere; it has no neighbors
    place = tl.where((place >= 0.0) & (place < m), place, tl.where(place >= m, m - 1.0, 0.0))
    return wrap, place.to(tl.int32), n


@triton.jit
def wrap_kernel(
    positions, cell, pbc, system_index, first_atom, reciprocal, grid,
    x_out, wrap_out, cell_of, rank, n_in_cell, broken, n_atoms,
    CUTOFF: tl.constexpr, MARGIN: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Wrapped positions of a block of atoms, and with CELLS their cells and ranks in them."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n_atoms
    s = tl.load(system_index + i, mask=there, other=0)
    x = tl.load(positions + 3 * i, mask=there, other=0.0).to(tl.float64)
    y = tl.load(positions + 3 * i + 1, mask=there, other=0.0).to(tl.float64)
    z = tl.load(positions + 3 * i + 2, mask=there, other=0.0).to(tl.float64)
    bad = ((x + y + z) * 0.0 != 0.0) & there
    tl.atomic_or(broken, tl.max(bad.to(tl.int32), 0))
    w0, k0, _n0 = along(x, y, z, reciprocal, grid, pbc, 0, s, there, CUTOFF, MARGIN)
    w1, k1, n1 = along(x, y, z, reciprocal, grid, pbc, 1, s, there, CUTOFF, MARGIN)
    w2, k2, n2 = along(x, y, z, reciprocal, grid, pbc, 2, s, there, CUTOFF, MARGIN)
    for a in tl.static_range(3):
        w = w0 if a == 0 else (w1 if a == 1 else w2)
        x -= w * tl.load(cell + 9 * s + 3 * a, mask=there, other=0.0).to(tl.float64)
        y -= w * tl.load(cell + 9 * s + 3 * a + 1, mask=there, other=0.0).to(tl.float64)
        z -= w * tl.load(cell + 9 * s + 3 * a + 2, mask=there, other=0.0).to(tl.float64)
        tl.store(wrap_out + 3 * i + a, w.to(tl.int32), mask=there)
    tl.store(x_out + 3 * i, x, mask=there)
    tl.store(x_out + 3 * i + 1, y, mask=there)
    tl.store(x_out + 3 * i + 2, z, mask=there)
    if CELLS:
        first = tl.load(first_atom + s, mask=there, other=0)
        own = first + (k0 * n1 + k1) * n2 + k2
        tl.store(cell_of + i, own.to(tl.int32), mask=there)
        found = tl.atomic_add(n_in_cell + own, 1, mask=there)
        tl.store(rank + i, found, mask=there)


@triton.jit
def place_kernel(
    x, cell_of, rank, first_in_cell, order, x_sorted, n_atoms, BLOCK: tl.constexpr
):  # fmt: skip
    """Atoms in order of their cells."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n_atoms
    own = tl.load(cell_of + i, mask=there, other=0)
    place = tl.load(first_in_cell + own, mask=there, other=0)
    place = (place + tl.load(rank + i, mask=there, other=0)).to(tl.int64)
    tl.store(order + place, i.to(tl.int32), mask=there)
    for a in tl.static_range(3):
        tl.store(x_sorted + 3 * place + a, tl.load(x + 3 * i + a, mask=there), mask=there)


@triton.jit
def sort_kernel(
    found, count, keys, n_atoms, capacity, ROWS: tl.constexpr, SLOTS: tl.constexpr
):  # fmt: skip
    """Keys of each of some atoms in ascending order: the rank of one is how many are smaller."""
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    slot = tl.arange(0, SLOTS)[None, :]
    n = tl.minimum(tl.load(count + i, mask=i < n_atoms, other=0), capacity)
    own = tl.load(found + i * capacity + slot, mask=slot < n, other=0)
    most = tl.max(tl.max(n, 1), 0)
    rank = (own * 0).to(tl.int32)
    k = most * 0
    while k < most:
        other = tl.load(found + i * capacity + k, mask=k < n, other=0)
        rank += ((other < own) & (k < n)).to(tl.int32)
        k += 1
    tl.store(keys + i * capacity + rank, own, mask=slot < n)


@triton.jit
def finish_kernel(
    keys, count, wrap, neighbors, shifts, reverse, n_atoms, capacity, most0, most1, most2,
    ROWS: tl.constexpr, SLOTS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Neighbors, shifts and reverse edges of some atoms from the sorted keys of all."""
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    slot = tl.arange(0, SLOTS)[None, :]
    inside = (i < n_atoms) & (slot < capacity)
    there = inside & (slot < tl.load(count + i, mask=i < n_atoms, other=0))
    own = i * capacity + slot
    key = tl.load(keys + own, mask=there, other=0)
    k1, k2 = 2 * most1 + 1, 2 * most2 + 1
    images = (2 * most0 + 1) * k1 * k2
    j = key // images
    m = (key - j * images).to(tl.int32)
    tl.store(neighbors + own, tl.where(there, j, n_atoms).to(tl.int32), mask=inside)
    for a in tl.static_range(3):
        if a == 0:
            shift = m // (k1 * k2) - most0
        elif a == 1:
            shift = (m // k2) % k1 - most1
        else:
            shift = m % k2 - most2
        shift += tl.load(wrap + 3 * i + a, mask=i < n_atoms, other=0)
        shift -= tl.load(wrap + 3 * j + a, mask=there, other=0)
        tl.store(shifts + 3 * own + a, tl.where(there, shift, 0), mask=inside)
    # bisection in the row of the neighbor, whose keys are sorted
    wanted = i * images + (images - 1 - m)
    row = j * capacity
    high = tl.minimum(tl.load(count + j, mask=there, other=0), capacity)
    low = high * 0
    for _ in tl.static_range(STEPS):
        between = low < high
        middle = (low + high) // 2
        before = tl.load(keys + row + middle, mask=there & between, other=0) < wanted
        low = tl.where(between & before, middle + 1, low)
        high = tl.where(between & (before == 0), middle, high)
    last = tl.minimum(low, capacity - 1)
    match = there & (tl.load(keys + row + last, mask=there, other=-1) == wanted)
    tl.store(reverse + own, tl.where(match, row + last, own), mask=inside)


def constants(cutoff: float, capacity: int) -> dict[str, dict[str, Any]]:
    """Constants of the kernels by name; compiled in, as arguments are in float32."""
    slots = triton.next_power_of_2(capacity)
    length = {"CUTOFF": float(cutoff), "MARGIN": MARGIN}
    rows = max(1, SLOTS_AT_ONCE // slots)
    row = {"ROWS": rows, "SLOTS": slots, "num_warps": max(1, min(16, rows * slots // 128))}
    return {
        "lattice": {**length, "ROUNDING": ROUNDING, "num_warps": 1},
        "wrap": {**length, "BLOCK": ATOMS, "num_warps": 4},
        "place": {"BLOCK": ATOMS, "num_warps": 4},
        "tiles": {"SQUARE": float(cutoff) ** 2, "BLOCK": TILE, "num_warps": 1},
        "cells": {"SQUARE": float(cutoff) ** 2, "BLOCK": TILE, "DEPTH": DEPTH, "num_warps": 1},
        "sort": row,
        "finish": {**row, "STEPS": capacity.bit_length()},
    }


def neighbor_matrix(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    system_index: Tensor,
    cutoff: float,
    *,
    capacity: int,
    images: tuple[int, int, int],
    method: str,
) -> NeighborMatrix:
    """All pairs with r < cutoff in fixed shapes; see the reference. Tiles or cells."""
    n, n_systems, device = len(positions), len(cell), positions.device
    cells = method == "cells"
    how = constants(cutoff, capacity)

    def integers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    positions, cell = positions.detach().contiguous(), cell.detach().contiguous()
    pbc, system_index = pbc.contiguous(), system_index.contiguous()
    broken = torch.zeros((), dtype=torch.int32, device=device)
    first_atom = torch.searchsorted(system_index, torch.arange(n_systems + 1, device=device))
    reciprocal = torch.empty(n_systems, 3, 3, dtype=torch.float64, device=device)
    grid = integers(n_systems, 3, 3)
    x = torch.empty(n, 3, dtype=torch.float64, device=device)
    wrap, count = integers(n, 3), integers(n)
    keys = integers(n, capacity, dtype=torch.int64)
    neighbors, shifts = integers(n, capacity), integers(n, capacity, 3)
    reverse = integers(n, capacity, dtype=torch.int64)
    lattice_kernel[(n_systems,)](
        cell, pbc, first_atom, reciprocal, grid, broken, *images, **how["lattice"]
    )
    if n > 0:
        blocks = (triton.cdiv(n, ATOMS),)
        rows = (triton.cdiv(n, how["finish"]["ROWS"]),)
        # those of a cell list alone are not touched without
        cell_of, rank = (integers(n), integers(n)) if cells else (wrap, wrap)
        n_in_cell = torch.zeros(n, dtype=torch.int32, device=device) if cells else wrap
        wrap_kernel[blocks](
            positions, cell, pbc, system_index, first_atom, reciprocal, grid,
            x, wrap, cell_of, rank, n_in_cell, broken, n, CELLS=cells, **how["wrap"],
        )  # fmt: skip
        if cells:
            first_in_cell = torch.zeros(n + 1, dtype=torch.int32, device=device)
            torch.cumsum(n_in_cell, 0, dtype=torch.int32, out=first_in_cell[1:])
            order, x_sorted, unsorted = integers(n), torch.empty_like(x), torch.empty_like(keys)
            place_kernel[blocks](
                x, cell_of, rank, first_in_cell, order, x_sorted, n, **how["place"]
            )
            cells_kernel[(n,)](
                x_sorted, order, cell_of, first_in_cell, x, cell, pbc, system_index, first_atom,
                grid, unsorted, count, broken, capacity, *images, **how["cells"],
            )  # fmt: skip
            sort_kernel[rows](unsorted, count, keys, n, capacity, **how["sort"])
        else:
            tiles_kernel[(n,)](
                x, cell, system_index, first_atom, grid, keys, count, broken, capacity, *images,
                **how["tiles"],
            )  # fmt: skip
        finish_kernel[rows](
            keys, count, wrap, neighbors, shifts, reverse, n, capacity, *images, **how["finish"]
        )
    return NeighborMatrix(
        neighbors=neighbors, shifts=shifts, count=count, reverse=reverse, overflow=broken != 0
    )
