"""Search for neighbors in Triton: among all atoms of a system, or in the cells around an atom."""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from pet_calc.kernels.neighbor_matrix.triton_lattice import box_of


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
