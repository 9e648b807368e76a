"""Lattices of systems in Triton: reciprocal vectors, images to search, and the grid of cells."""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


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
def completed(ax, ay, az, bx, by, bz, cx, cy, cz, p0, p1, p2):
    """Lattice vectors, of which those of free directions are replaced by unit vectors across."""
    # beside a single periodic vector: a second one across it, by the axis it is farthest from
    n = p0 + p1 + p2
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
    return ax, ay, az, bx, by, bz, cx, cy, cz


@triton.jit
def reciprocal_of(ax, ay, az, bx, by, bz, cx, cy, cz):
    """Reciprocal vectors of three lattice vectors."""
    ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    determinant = ax * ux + ay * uy + az * uz
    ux, uy, uz = ux / determinant, uy / determinant, uz / determinant
    vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    vx, vy, vz = vx / determinant, vy / determinant, vz / determinant
    wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    wx, wy, wz = wx / determinant, wy / determinant, wz / determinant
    return ux, uy, uz, vx, vy, vz, wx, wy, wz


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
    ax, ay, az, bx, by, bz, cx, cy, cz = completed(ax, ay, az, bx, by, bz, cx, cy, cz, p0, p1, p2)
    ux, uy, uz, vx, vy, vz, wx, wy, wz = reciprocal_of(ax, ay, az, bx, by, bz, cx, cy, cz)
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
