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
def unit_cross(ax, ay, az, bx, by, bz):
    """Unit vector along a cross product."""
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = tl.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@triton.jit
def box_of(cell, s):
    """Lattice vectors of a system in float64."""
    return (
        tl.load(cell + 9 * s).to(tl.float64),
        tl.load(cell + 9 * s + 1).to(tl.float64),
        tl.load(cell + 9 * s + 2).to(tl.float64),
        tl.load(cell + 9 * s + 3).to(tl.float64),
        tl.load(cell + 9 * s + 4).to(tl.float64),
        tl.load(cell + 9 * s + 5).to(tl.float64),
        tl.load(cell + 9 * s + 6).to(tl.float64),
        tl.load(cell + 9 * s + 7).to(tl.float64),
        tl.load(cell + 9 * s + 8).to(tl.float64),
    )


@triton.jit
def cells_along(bx, by, bz, periodic, CUTOFF: tl.constexpr, MARGIN: tl.constexpr):
    """Spans of the cutoff, and cells of one cutoff that a periodic direction has."""
    span = CUTOFF * tl.sqrt(bx * bx + by * by + bz * bz)
    cells = tl.floor(1.0 / (span * (1.0 + MARGIN)))
    return span, tl.where(periodic, tl.minimum(tl.maximum(cells, 1.0), 1e9), 1.0).to(tl.int32)


@triton.jit
def images_along(span, periodic, most, ROUNDING: tl.constexpr):
    """Images to search on either side, and whether `most` suffice."""
    needed = 1.0 + tl.floor(span + ROUNDING)
    images = tl.minimum(tl.minimum(needed, 1e9).to(tl.int32), most)
    return tl.where(periodic, images, 0), (needed <= most) | (periodic == 0)


@triton.jit
def lattice_kernel(
    cell, pbc, first_atom, reciprocal, grid, broken, most0, most1, most2,
    CUTOFF: tl.constexpr, MARGIN: tl.constexpr, ROUNDING: tl.constexpr,
):  # fmt: skip
    """Reciprocal vectors of one system; cells, reach in cells and images in each direction."""
    s = tl.program_id(0).to(tl.int64)
    ax, ay, az, bx, by, bz, cx, cy, cz = box_of(cell, s)
    p0, p1, p2 = tl.load(pbc + 3 * s), tl.load(pbc + 3 * s + 1), tl.load(pbc + 3 * s + 2)
    p0, p1, p2 = p0.to(tl.int32), p1.to(tl.int32), p2.to(tl.int32)
    n = p0 + p1 + p2
    finite = (ax + ay + az + bx + by + bz + cx + cy + cz) * 0.0 == 0.0
    # beside a single periodic vector: a second one across it, by the axis it is farthest from
    zero = ax * 0.0
    vx = tl.where(p0 > 0, ax, zero) + tl.where(p1 > 0, bx, zero) + tl.where(p2 > 0, cx, zero)
    vy = tl.where(p0 > 0, ay, zero) + tl.where(p1 > 0, by, zero) + tl.where(p2 > 0, cy, zero)
    vz = tl.where(p0 > 0, az, zero) + tl.where(p1 > 0, bz, zero) + tl.where(p2 > 0, cz, zero)
    along_x = (tl.abs(vx) <= tl.abs(vy)) & (tl.abs(vx) <= tl.abs(vz))
    along_y = (along_x == 0) & (tl.abs(vy) <= tl.abs(vz))
    along_z = (along_x == 0) & (along_y == 0)
    ux, uy, uz = unit_cross(
        vx, vy, vz, along_x.to(tl.float64), along_y.to(tl.float64), along_z.to(tl.float64)
    )
    fill0, fill1 = (n == 1) & (p0 == 0), (n == 1) & (p0 > 0)
    none = n == 0
    one = none.to(tl.float64)
    ax, ay, az = tl.where(fill0, ux, ax), tl.where(fill0, uy, ay), tl.where(fill0, uz, az)
    bx, by, bz = tl.where(fill1, ux, bx), tl.where(fill1, uy, by), tl.where(fill1, uz, bz)
    ax, ay, az = tl.where(none, one, ax), tl.where(none, zero, ay), tl.where(none, zero, az)
    bx, by, bz = tl.where(none, zero, bx), tl.where(none, one, by), tl.where(none, zero, bz)
    cx, cy, cz = tl.where(none, zero, cx), tl.where(none, zero, cy), tl.where(none, one, cz)
    # now at most one is missing
    nx, ny, nz = unit_cross(bx, by, bz, cx, cy, cz)
    missing = (p0 == 0) & (fill0 == 0) & (n > 0)
    ax, ay, az = tl.where(missing, nx, ax), tl.where(missing, ny, ay), tl.where(missing, nz, az)
    nx, ny, nz = unit_cross(cx, cy, cz, ax, ay, az)
    missing = (p1 == 0) & (fill1 == 0) & (n > 0)
    bx, by, bz = tl.where(missing, nx, bx), tl.where(missing, ny, by), tl.where(missing, nz, bz)
    nx, ny, nz = unit_cross(ax, ay, az, bx, by, bz)
    missing = (p2 == 0) & (n > 0)
    cx, cy, cz = tl.where(missing, nx, cx), tl.where(missing, ny, cy), tl.where(missing, nz, cz)

    ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    determinant = ax * ux + ay * uy + az * uz
    ux, uy, uz = ux / determinant, uy / determinant, uz / determinant
    vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    vx, vy, vz = vx / determinant, vy / determinant, vz / determinant
    wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    wx, wy, wz = wx / determinant, wy / determinant, wz / determinant
    tl.store(reciprocal + 9 * s, ux)
    tl.store(reciprocal + 9 * s + 1, uy)
    tl.store(reciprocal + 9 * s + 2, uz)
    tl.store(reciprocal + 9 * s + 3, vx)
    tl.store(reciprocal + 9 * s + 4, vy)
    tl.store(reciprocal + 9 * s + 5, vz)
    tl.store(reciprocal + 9 * s + 6, wx)
    tl.store(reciprocal + 9 * s + 7, wy)
    tl.store(reciprocal + 9 * s + 8, wz)

    span0, cells0 = cells_along(ux, uy, uz, p0 > 0, CUTOFF, MARGIN)
    span1, cells1 = cells_along(vx, vy, vz, p1 > 0, CUTOFF, MARGIN)
    span2, cells2 = cells_along(wx, wy, wz, p2 > 0, CUTOFF, MARGIN)
    images0, enough0 = images_along(span0, p0 > 0, most0, ROUNDING)
    images1, enough1 = images_along(span1, p1 > 0, most1, ROUNDING)
    images2, enough2 = images_along(span2, p2 > 0, most2, ROUNDING)
    # as many cells as atoms at most: periodic directions first, free ones share what is left
    left = tl.load(first_atom + s + 1) - tl.load(first_atom + s)
    left = tl.maximum(left, 1).to(tl.int32)
    cells0 = tl.minimum(cells0, left)
    left = left // cells0
    cells1 = tl.minimum(cells1, left)
    left = left // cells1
    cells2 = tl.minimum(cells2, left)
    left = left // cells2
    room = left.to(tl.float64)
    each = tl.where(n == 2, room, tl.where(n == 1, tl.sqrt(room), tl.exp(tl.log(room) / 3.0)))
    # rounded up, its cube would exceed what is left
    share = tl.maximum(tl.floor(each * (1.0 + 1e-12)).to(tl.int32), 1)
    cells0 = tl.where(p0 > 0, cells0, share)
    cells1 = tl.where(p1 > 0, cells1, share)
    cells2 = tl.where(p2 > 0, cells2, share)
    tl.store(grid + 9 * s, cells0)
    tl.store(grid + 9 * s + 1, cells1)
    tl.store(grid + 9 * s + 2, cells2)
    # cells are shorter than the cutoff only where one spans the whole lattice vector
    tl.store(grid + 9 * s + 3, tl.where((cells0 == 1) & (p0 > 0), images0, 1))
    tl.store(grid + 9 * s + 4, tl.where((cells1 == 1) & (p1 > 0), images1, 1))
    tl.store(grid + 9 * s + 5, tl.where((cells2 == 1) & (p2 > 0), images2, 1))
    tl.store(grid + 9 * s + 6, images0)
    tl.store(grid + 9 * s + 7, images1)
    tl.store(grid + 9 * s + 8, images2)
    good = finite & enough0 & enough1 & enough2
    tl.atomic_or(broken, (good == 0).to(tl.int32))


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
def component(xj, xi, t0, t1, t2, c0, c1, c2):
    """A component of the vector, summed as the reference does."""
    return (((xj - xi) + t0 * c0) + t1 * c1) + t2 * c2


@triton.jit
def tiles_kernel(
    x, cell, system_index, first_atom, grid, keys, count, broken, capacity, most0, most1, most2,
    SQUARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Neighbors of one atom among all of its system, in the order of their keys."""
    i = tl.program_id(0).to(tl.int64)
    s = tl.load(system_index + i)
    begin = tl.load(first_atom + s)
    n = (tl.load(first_atom + s + 1) - begin).to(tl.int32)
    g0 = tl.load(grid + 9 * s + 6)
    g1 = tl.load(grid + 9 * s + 7)
    g2 = tl.load(grid + 9 * s + 8)
    k1, k2 = 2 * g1 + 1, 2 * g2 + 1
    images = (2 * g0 + 1) * k1 * k2
    ax, ay, az, bx, by, bz, cx, cy, cz = box_of(cell, s)
    xi, yi, zi = tl.load(x + 3 * i), tl.load(x + 3 * i + 1), tl.load(x + 3 * i + 2)
    t = tl.arange(0, BLOCK)
    found = n * 0
    k0 = n * 0
    while k0 < n * images:
        k = k0 + t
        there = k < n * images
        j = begin + k // images
        m = k % images
        s0, s1, s2 = m // (k1 * k2) - g0, (m // k2) % k1 - g1, m % k2 - g2
        t0, t1, t2 = s0.to(tl.float64), s1.to(tl.float64), s2.to(tl.float64)
        xj = tl.load(x + 3 * j, mask=there, other=0.0)
        yj = tl.load(x + 3 * j + 1, mask=there, other=0.0)
        zj = tl.load(x + 3 * j + 2, mask=there, other=0.0)
        dx = component(xj, xi, t0, t1, t2, ax, bx, cx)
        dy = component(yj, yi, t0, t1, t2, ay, by, cy)
        dz = component(zj, zi, t0, t1, t2, az, bz, cz)
        itself = (j == i) & (s0 == 0) & (s1 == 0) & (s2 == 0)
        hit = there & (dx * dx + dy * dy + dz * dz < SQUARE) & (itself == 0)
        place = found + tl.cumsum(hit.to(tl.int32), 0) - 1
        key = (j * (2 * most0 + 1) + s0 + most0) * (2 * most1 + 1) + s1 + most1
        key = key * (2 * most2 + 1) + s2 + most2
        tl.store(keys + i * capacity + place, key, mask=hit & (place < capacity))
        found += tl.sum(hit.to(tl.int32), 0)
        k0 += BLOCK
    tl.store(count + i, found)
    if found > capacity:
        tl.atomic_or(broken, 1)


@triton.jit
def cell_beside(own, d, n, reach, periodic):
    """A cell around `own`, and the lattice vectors between."""
    line = own + d - reach + n * reach
    return line % n, tl.where(periodic, line // n - reach, 0)


@triton.jit
def cells_kernel(
    x_sorted, order, cell_of, first_in_cell, x, cell, pbc, system_index, first_atom, grid,
    keys, count, broken, capacity, most0, most1, most2,
    SQUARE: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Neighbors of one atom among those in the cells around it, in no particular order.

    A tile holds DEPTH atoms of each of BLOCK / DEPTH cells.
    """
    i = tl.load(order + tl.program_id(0)).to(tl.int64)
    s = tl.load(system_index + i)
    first = tl.load(first_atom + s)
    n0, n1, n2 = tl.load(grid + 9 * s), tl.load(grid + 9 * s + 1), tl.load(grid + 9 * s + 2)
    r0, r1, r2 = tl.load(grid + 9 * s + 3), tl.load(grid + 9 * s + 4), tl.load(grid + 9 * s + 5)
    p0, p1, p2 = tl.load(pbc + 3 * s), tl.load(pbc + 3 * s + 1), tl.load(pbc + 3 * s + 2)
    p0, p1, p2 = p0 != 0, p1 != 0, p2 != 0
    own = (tl.load(cell_of + i) - first).to(tl.int32)
    own0, own1, own2 = own // (n1 * n2), (own // n2) % n1, own % n2
    # along a free direction a cell is visited once
    v0 = tl.where(p0, 2 * r0 + 1, tl.minimum(n0, 3))
    v1 = tl.where(p1, 2 * r1 + 1, tl.minimum(n1, 3))
    v2 = tl.where(p2, 2 * r2 + 1, tl.minimum(n2, 3))
    ax, ay, az, bx, by, bz, cx, cy, cz = box_of(cell, s)
    xi, yi, zi = tl.load(x + 3 * i), tl.load(x + 3 * i + 1), tl.load(x + 3 * i + 2)
    t = tl.arange(0, BLOCK)
    found = own * 0
    e0 = own * 0
    while e0 < v0 * v1 * v2:
        e = e0 + t // DEPTH
        around = e < v0 * v1 * v2
        b0, s0 = cell_beside(own0, e // (v1 * v2), n0, r0, p0)
        b1, s1 = cell_beside(own1, (e // v2) % v1, n1, r1, p1)
        b2, s2 = cell_beside(own2, e % v2, n2, r2, p2)
        t0, t1, t2 = s0.to(tl.float64), s1.to(tl.float64), s2.to(tl.float64)
        beside = first + (b0 * n1 + b1) * n2 + b2
        begin = tl.load(first_in_cell + beside, mask=around, other=0)
        end = tl.load(first_in_cell + beside + 1, mask=around, other=0)
        longest = tl.max(end - begin, 0)
        depth = longest * 0
        while depth < longest:
            k = (begin + depth + t % DEPTH).to(tl.int64)
            there = k < end
            j = tl.load(order + k, mask=there, other=0).to(tl.int64)
            xj = tl.load(x_sorted + 3 * k, mask=there, other=0.0)
            yj = tl.load(x_sorted + 3 * k + 1, mask=there, other=0.0)
            zj = tl.load(x_sorted + 3 * k + 2, mask=there, other=0.0)
            dx = component(xj, xi, t0, t1, t2, ax, bx, cx)
            dy = component(yj, yi, t0, t1, t2, ay, by, cy)
            dz = component(zj, zi, t0, t1, t2, az, bz, cz)
            itself = (j == i) & (s0 == 0) & (s1 == 0) & (s2 == 0)
            hit = there & (dx * dx + dy * dy + dz * dz < SQUARE) & (itself == 0)
            place = found + tl.cumsum(hit.to(tl.int32), 0) - 1
            key = (j * (2 * most0 + 1) + s0 + most0) * (2 * most1 + 1) + s1 + most1
            key = key * (2 * most2 + 1) + s2 + most2
            tl.store(keys + i * capacity + place, key, mask=hit & (place < capacity))
            found += tl.sum(hit.to(tl.int32), 0)
            depth += DEPTH
        e0 += BLOCK // DEPTH
    tl.store(count + i, found)
    if found > capacity:
        tl.atomic_or(broken, 1)


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
