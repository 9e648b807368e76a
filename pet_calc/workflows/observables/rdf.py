"""Partial radial distribution functions and their first peak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from pet_calc.neighbors.vesin_cpu import vesin_half_list
from pet_calc.workflows.statistics import standard_error

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RadialDistribution:
    """g(r) of one pair of elements, averaged over frames.

    Attributes
    ----------
    pair : tuple of str
        Symbols of the two elements.
    r : array, shape (n_bins,)
        Middle of the bins, Å.
    g : array, shape (n_bins,)
        Mean over all frames; 1 for an ideal gas of any size.
    blocks : array, shape (n_blocks, n_bins)
        Means over consecutive parts of the trajectory.
    n_frames : int
        Number of frames.
    """

    pair: tuple[str, str]
    r: Array
    g: Array
    blocks: Array
    n_frames: int

    @property
    def error(self) -> Array:
        """Standard error of `g` from the scatter of the blocks; NaN with a single block."""
        return standard_error(self.blocks)


def partial_rdf(
    frames: Iterable[Atoms],
    first: str,
    second: str,
    *,
    r_max: float | None = None,
    n_bins: int = 150,
    n_blocks: int = 5,
) -> RadialDistribution:
    r"""Partial radial distribution function of periodic structures.

    .. math:: g_{ab}(r_k) = \frac{V}{N_a\,(N_b - \delta_{ab})}\,
       \frac{n_{ab}(r_k)}{\tfrac{4}{3}\pi\,(r_{k+1}^3 - r_k^3)}

    ====================  ==========  ==========================================================
    symbol                variable    meaning
    ====================  ==========  ==========================================================
    :math:`n_{ab}(r_k)`   counts      ordered pairs (a, b) with distance in bin k
    :math:`V`             volume      volume of the frame, Å³
    :math:`N_a, N_b`      n_a, n_b    atoms of either element
    ====================  ==========  ==========================================================

    With :math:`N_b - \delta_{ab}` (as LAMMPS) an ideal gas gives 1 at every size;
    ``ase.geometry.rdf`` divides by :math:`N_b`, which is lower by :math:`1/N` for a = b.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        Periodic in three directions. The numbers of atoms may differ between frames.
    first, second : str
        Chemical symbols.
    r_max : float, optional
        Largest distance, Å; by default half the smallest height of the first cell. More is an
        error: it would count images of one and the same pair.
    n_bins : int
        Number of bins from 0 to `r_max`.
    n_blocks : int
        Parts of the trajectory for the error bar; fewer if there are fewer frames.
    """
    images = list(frames)
    if not images:
        raise ValueError("`frames` must hold at least one structure, got none")
    if n_bins < 1:
        raise ValueError(f"`n_bins` must be at least 1, got {n_bins}")
    half = min(smallest_height(image) for image in images) / 2.0
    if r_max is None:
        r_max = half
    if not 0.0 < r_max <= half * (1.0 + 1e-12):
        raise ValueError(
            f"`r_max` must be positive and at most half the smallest cell height ({half:.3f} Å), "
            f"got {r_max}"
        )
    edges = np.linspace(0.0, r_max, n_bins + 1)
    per_frame = np.stack([_frame_rdf(image, first, second, edges) for image in images])
    blocks = np.array_split(per_frame, min(n_blocks, len(images)))
    return RadialDistribution(
        pair=(first, second),
        r=0.5 * (edges[1:] + edges[:-1]),
        g=per_frame.mean(axis=0),
        blocks=np.stack([block.mean(axis=0) for block in blocks]),
        n_frames=len(images),
    )


def _frame_rdf(atoms: Atoms, first: str, second: str, edges: Array) -> Array:
    is_a = atoms.numbers == atomic_numbers[first]
    is_b = atoms.numbers == atomic_numbers[second]
    n_a, n_b = int(is_a.sum()), int(is_b.sum())
    same = first == second
    n_pairs = n_a * (n_b - 1 if same else n_b)
    if n_pairs < 1:
        raise ValueError(
            f"g(r) of {first}–{second} needs a pair of these atoms, got {n_a} {first}"
            + ("" if same else f" and {n_b} {second}")
        )
    cell = atoms.cell.array
    i, j, shifts = vesin_half_list(atoms.positions, cell, atoms.pbc, float(edges[-1]))
    # each unordered pair is listed once; as ordered pairs, (a, b) and (b, a) are both counted
    weight = (is_a[i] & is_b[j]).astype(np.int64) + (is_a[j] & is_b[i])
    chosen = weight > 0
    i, j, shifts, weight = i[chosen], j[chosen], shifts[chosen], weight[chosen]
    d = atoms.positions[j] - atoms.positions[i] + shifts @ cell
    counts, _ = np.histogram(np.sqrt(np.einsum("pc,pc->p", d, d)), bins=edges, weights=weight)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    return np.asarray(abs(atoms.cell.volume) / n_pairs * counts / shells)


def smallest_height(atoms: Atoms) -> float:
    """Smallest distance between opposite faces of a three-dimensionally periodic cell, Å."""
    if not atoms.pbc.all():
        raise ValueError(
            f"g(r) needs a structure that is periodic in three directions, got pbc="
            f"{atoms.pbc.tolist()}"
        )
    cell = atoms.cell.array
    # rows of the inverse transpose are the reciprocal vectors, of length 1 / height
    return float(1.0 / np.linalg.norm(np.linalg.inv(cell).T, axis=1).max())


@dataclass(frozen=True)
class Peak:
    """First peak of g(r): position in Å and height, each with a standard error (may be NaN)."""

    position: float
    position_error: float
    height: float
    height_error: float


def first_peak(
    rdf: RadialDistribution, *, r_min: float = 0.0, r_max: float | None = None, width: float = 0.2
) -> Peak:
    """Position and height of the first peak.

    The highest bin of [`r_min`, `r_max`] is taken as the peak and refined by a quartic fitted by
    least squares to ln g, the potential of mean force over -kT, within `width` of it. The first
    peak of a liquid rises faster than it falls, which biases a parabola in g by several hundredths
    of an ångström; the quartic in ln g stays within 0.005 Å for a peak shaped like water's, and
    averages the noise of more bins than a narrower fit could. Errors come from the same fit to
    each block of the trajectory.

    Parameters
    ----------
    rdf : RadialDistribution
    r_min, r_max : float
        Range that holds the first peak, Å; by default up to the end.
    width : float
        Half width of the fit, Å.
    """
    inside = rdf.r >= r_min
    if r_max is not None:
        inside &= rdf.r <= r_max
    if not inside.any() or not (rdf.g[inside] > 0).any():
        raise ValueError(
            f"g(r) must have a peak between {r_min} and {rdf.r[-1] if r_max is None else r_max} Å, "
            f"but it is zero there (range of the data: {rdf.r[0]:.2f} to {rdf.r[-1]:.2f} Å)"
        )
    position, height = _summit(rdf.r, rdf.g, inside, width)
    if len(rdf.blocks) < 2:
        return Peak(position, float("nan"), height, float("nan"))
    summits = np.array([_summit(rdf.r, block, inside, width) for block in rdf.blocks])
    errors = standard_error(summits)
    return Peak(position, float(errors[0]), height, float(errors[1]))


def _summit(r: Array, g: Array, inside: NDArray[np.bool_], width: float) -> tuple[float, float]:
    top = int(np.argmax(np.where(inside, g, -np.inf)))
    # far down the flank, ln g is steep and noisy
    near = (np.abs(r - r[top]) <= width * (1 + 1e-9)) & (g > 0.15 * g[top])
    if near.sum() < 6:  # a quartic through fewer points would follow the noise
        return float(r[top]), float(g[top])
    x = r[near] - r[top]
    # the error of ln g is proportional to 1 / sqrt(g), as counts go
    quartic = np.polynomial.Polynomial.fit(x, np.log(g[near]), 4, w=np.sqrt(g[near]))
    fine = np.linspace(max(x[0], -width / 2), min(x[-1], width / 2), 401)
    values = quartic(fine)
    best = int(np.argmax(values))
    return float(r[top] + fine[best]), float(np.exp(values[best]))
