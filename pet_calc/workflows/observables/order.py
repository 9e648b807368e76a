"""Chemical short-range order of alloys: Warren-Cowley parameters of the first shells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from pet_calc.neighbors.vesin_cpu import vesin_half_list
from pet_calc.workflows.observables.motion import Motion
from pet_calc.workflows.statistics import Estimate, block_mean

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Lattice:
    """Shells of a crystal: distances in units of the cube root of the volume per atom, and sizes.

    Attributes
    ----------
    name : str
    radii : tuple of float
        Distances of the shells over (V/N)^(1/3).
    sizes : tuple of int
        Neighbors in each shell.
    """

    name: str
    radii: tuple[float, ...]
    sizes: tuple[int, ...]


def _lattice(
    name: str, atoms_per_cell: int, squares: Sequence[float], sizes: Sequence[int]
) -> Lattice:
    edge = atoms_per_cell ** (1.0 / 3.0)
    return Lattice(name, tuple(float(edge * s**0.5) for s in squares), tuple(sizes))


# squared distances in units of the cubic lattice constant; for hcp at the ideal axial ratio, of
# the fcc crystal of the same density
LATTICES = (
    _lattice("fcc", 4, (1 / 2, 1, 3 / 2, 2), (12, 6, 24, 12)),
    _lattice("bcc", 2, (3 / 4, 1, 2, 11 / 4), (8, 6, 12, 24)),
    _lattice("hcp", 4, (1 / 2, 1, 4 / 3, 3 / 2), (12, 6, 2, 18)),
    _lattice("diamond", 8, (3 / 16, 1 / 2, 11 / 16, 1), (4, 12, 12, 6)),
    _lattice("sc", 1, (1, 2, 3, 4), (6, 12, 8, 6)),
)


@dataclass(frozen=True, eq=False)
class Shells:
    """Neighbors of every site, shell by shell.

    Attributes
    ----------
    crystal : str
        Name of the lattice.
    radii : array, shape (n_shells,)
        Mean distance, Å.
    pairs : tuple of (centers, neighbors)
        Per shell two arrays of shape (n_pairs,): each pair in both directions, and once per
        periodic image.
    """

    crystal: str
    radii: Array
    pairs: tuple[tuple[Integers, Integers], ...]


@dataclass(frozen=True, eq=False)
class WarrenCowley:
    """Warren-Cowley parameters of a trajectory.

    Attributes
    ----------
    symbols : tuple of str
        Elements.
    radii : array, shape (n_shells,)
        Mean distances, Å.
    series : array, shape (n_frames, n_shells, n_elements, n_elements)
        By frame: center element, neighbor element.
    """

    symbols: tuple[str, ...]
    radii: Array
    series: Array

    def estimate(self, shell: int, center: str, neighbor: str) -> Estimate:
        """Mean and error of one parameter; shells count from 0."""
        i, j = self.symbols.index(center), self.symbols.index(neighbor)
        return block_mean(self.series[:, shell, i, j])


def mean_structure(motion: Motion, pbc: Sequence[bool] = (True, True, True)) -> Atoms:
    """Atoms at their mean fractional coordinates in the mean cell: the sites of a crystal."""
    drift = motion.positions - motion.centered
    scaled = np.einsum("fna,fab->fnb", motion.positions - drift, np.linalg.inv(motion.cells))
    cell = motion.cells.mean(axis=0)
    return Atoms(motion.numbers, positions=scaled.mean(axis=0) @ cell, cell=cell, pbc=pbc)


def crystal_shells(sites: Atoms, n_shells: int = 2, crystal: str | None = None) -> Shells:
    """Neighbor shells of a crystal whose sites are all occupied.

    Pairs are sorted into the shells of an ideal lattice of the same density, with limits half way
    between them; every site must then have the right number of neighbors in each. Distortions of
    an alloy are harmless as long as they do.

    Parameters
    ----------
    sites : ase.Atoms
        One atom near each site, as `mean_structure` gives; a single hot frame may fail.
    n_shells : int
        1 to 3.
    crystal : str, optional
        ``fcc``, ``bcc``, ``hcp``, ``diamond`` or ``sc``; by default the one whose first three
        shells fit, whatever `n_shells` is.

    Raises
    ------
    ValueError
        If no lattice fits: a liquid, a vacancy, a surface, or a strongly distorted cell.
    """
    if not 1 <= n_shells <= 3:
        raise ValueError(f"`n_shells` must be 1, 2 or 3, got {n_shells}")
    if not sites.pbc.all():
        raise ValueError(f"shells need three periodic directions, got pbc={sites.pbc.tolist()}")
    candidates = [lattice for lattice in LATTICES if crystal in (None, lattice.name)]
    if not candidates:
        raise ValueError(
            f"`crystal` must be one of {', '.join(x.name for x in LATTICES)}, got {crystal!r}"
        )
    length = (abs(sites.cell.volume) / len(sites)) ** (1.0 / 3.0)
    n_tested = n_shells if crystal is not None else 3  # the third tells hcp from fcc
    found = []
    for lattice in candidates:
        radii = np.array(lattice.radii) * length
        limits = np.array([0.0, *(0.5 * (radii[1:] + radii[:-1]))])[: n_tested + 1]
        shells = distance_shells(sites, list(pairwise(limits)))
        counts = [np.bincount(i, minlength=len(sites)) for i, _ in shells.pairs]
        wrong = [int((c != z).sum()) for c, z in zip(counts, lattice.sizes, strict=False)]
        # shells beyond those asked for tell lattices apart; a few distorted sites may fail there
        if not any(wrong[:n_shells]) and max(wrong) <= 0.25 * len(sites):
            return Shells(lattice.name, shells.radii[:n_shells], shells.pairs[:n_shells])
        found.append(f"{lattice.name}: {max(wrong)} sites with another number of neighbors")
    raise ValueError(
        f"the mean structure of {len(sites)} atoms must be a full crystal lattice, but is none of "
        + "; ".join(found)
        + ". Average over more frames, name the crystal, or use distance_shells"
    )


def distance_shells(atoms: Atoms, limits: Sequence[tuple[float, float]]) -> Shells:
    """Neighbors by distance: one shell per (lower, upper) limit in Å."""
    if not limits or any(not 0 <= low < high for low, high in limits):
        raise ValueError(f"shells are ranges 0 <= lower < upper in Å, got {list(limits)}")
    cell = atoms.cell.array
    i, j, shifts = vesin_half_list(
        atoms.positions, cell, atoms.pbc, float(max(high for _, high in limits))
    )
    r = np.linalg.norm(atoms.positions[j] - atoms.positions[i] + shifts @ cell, axis=1)
    pairs, radii = [], []
    for low, high in limits:
        inside = (r > low) & (r <= high)
        pairs.append(
            (np.concatenate([i[inside], j[inside]]), np.concatenate([j[inside], i[inside]]))
        )
        radii.append(float(r[inside].mean()) if inside.any() else np.nan)
    return Shells("given distances", np.array(radii), tuple(pairs))


def warren_cowley(numbers: Integers, shells: Shells) -> tuple[tuple[str, ...], Array]:
    r"""Warren-Cowley order parameters of one arrangement of species on sites.

    .. math:: \alpha_{ij}^{(s)} = 1 - \frac{p_{ij}^{(s)}}{c_j}

    with :math:`p_{ij}^{(s)}` the probability that a neighbor in shell s of an atom i is a j, and
    :math:`c_j` the concentration of j (Cowley, Phys. Rev. 77, 669 (1950)). For unlike species,
    negative values mean attraction: -1 in the first shell of B2 (CsCl), -1/3 in that of L1_2
    (Cu3Au). A random arrangement of N atoms gives -1/(N - 1) on average, 0 for many. For
    like species the sign turns: positive values mean that i avoids i.

    Parameters
    ----------
    numbers : array, shape (n_atoms,)
        Atomic numbers at the sites.
    shells : Shells
        Neighbors of the sites.

    Returns
    -------
    symbols : tuple of str
    alpha : array, shape (n_shells, n_elements, n_elements)
        Center element, neighbor element; NaN where an element has no neighbor at all.
    """
    elements, species = np.unique(numbers, return_inverse=True)
    n = len(elements)
    concentration = np.bincount(species, minlength=n) / len(numbers)
    alpha = np.empty((len(shells.pairs), n, n))
    for s, (i, j) in enumerate(shells.pairs):
        counts = np.bincount(species[i] * n + species[j], minlength=n * n).reshape(n, n)
        total = counts.sum(axis=1, keepdims=True)
        p = np.divide(counts, total, out=np.full((n, n), np.nan), where=total > 0)
        alpha[s] = 1.0 - p / concentration
    return tuple(chemical_symbols[z] for z in elements), alpha


def warren_cowley_series(frames: Iterable[Atoms], shells: Shells) -> WarrenCowley:
    """Order parameters frame by frame, on fixed sites; species may change places, as by swaps."""
    rows, symbols = [], None
    for atoms in frames:
        found, alpha = warren_cowley(atoms.numbers, shells)
        if symbols is not None and found != symbols:
            raise ValueError(f"all frames must hold the same elements, got {symbols} and {found}")
        symbols = found
        rows.append(alpha)
    if symbols is None:
        raise ValueError("`frames` must hold at least one structure, got none")
    return WarrenCowley(symbols, shells.radii, np.array(rows))
