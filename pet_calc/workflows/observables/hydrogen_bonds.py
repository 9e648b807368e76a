"""Hydrogen bonds of water by the geometry of two molecules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.neighbors.vesin_cpu import vesin_half_list
from pet_calc.workflows.statistics import Estimate, block_mean

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: No hydrogen of water strays farther from its oxygen, Å.
LONGEST_OH = 1.6


@dataclass(frozen=True, eq=False)
class HydrogenBonds:
    """Hydrogen bonds of a trajectory.

    Attributes
    ----------
    per_molecule : Estimate
        Bonds that a molecule takes part in, as donor or acceptor: twice the number of bonds over
        the number of molecules. 4 in ice.
    series : array, shape (n_frames,)
        The same by frame.
    distribution : array, shape (n,)
        Part of the molecules with 0, 1, 2, ... bonds.
    """

    per_molecule: Estimate
    series: Array
    distribution: Array


def frame_hydrogen_bonds(
    atoms: Atoms, *, r_max: float = 3.5, angle_max: float = 30.0
) -> tuple[Integers, Integers]:
    r"""Hydrogen bonds of one structure.

    A bond from donor D to acceptor A exists where

    .. math:: r_{DA} < 3.5\ \text{Å} \quad\text{and}\quad \angle(H - D \cdots A) < 30°

    for a hydrogen H of D, the angle being at the donor (Luzar and Chandler, Phys. Rev. Lett. 76,
    928 (1996)). A hydrogen belongs to the nearest oxygen.

    Parameters
    ----------
    atoms : ase.Atoms
        Oxygen and hydrogen; other elements are ignored.
    r_max : float
        Å.
    angle_max : float
        Degrees.

    Returns
    -------
    donors, acceptors : arrays, shape (n_bonds,)
        Indices of oxygen atoms, counted among all atoms.
    """
    oxygen = np.flatnonzero(atoms.numbers == 8)
    hydrogen = np.flatnonzero(atoms.numbers == 1)
    if len(oxygen) < 2 or len(hydrogen) == 0:
        raise ValueError(
            f"hydrogen bonds need oxygen and hydrogen, got {len(oxygen)} O and {len(hydrogen)} H"
        )
    chosen = np.concatenate([oxygen, hydrogen])
    positions, cell = atoms.positions[chosen], atoms.cell.array
    i, j, shifts = vesin_half_list(positions, cell, atoms.pbc, max(r_max, LONGEST_OH))
    # both directions of every pair
    i, j, d = (
        np.concatenate([i, j]),
        np.concatenate([j, i]),
        positions[j] - positions[i] + shifts @ cell,
    )
    d = np.concatenate([d, -d])
    r = np.linalg.norm(d, axis=1)
    n = len(oxygen)

    covalent = (i >= n) & (j < n) & (r < LONGEST_OH)
    order = np.flatnonzero(covalent)[np.argsort(r[covalent], kind="stable")]
    _, nearest = np.unique(i[order], return_index=True)
    owners = order[nearest]
    if len(owners) < len(hydrogen):
        lost = hydrogen[np.setdiff1d(np.arange(len(hydrogen)), i[owners] - n)[0]]
        raise ValueError(
            f"every hydrogen must have an oxygen within {LONGEST_OH} Å, but atom {lost} has none; "
            "hydrogen bonds are counted for water only"
        )
    # hydrogens of each oxygen, side by side
    donor, bond = j[owners], -d[owners]
    rank = np.zeros(len(donor), dtype=np.int64)
    by_donor = np.argsort(donor, kind="stable")
    counts = np.bincount(donor, minlength=n)
    rank[by_donor] = np.arange(len(donor)) - np.repeat(np.cumsum(counts) - counts, counts)
    arms = np.full((n, int(counts.max()), 3), np.nan)
    arms[donor, rank] = bond / np.linalg.norm(bond, axis=1, keepdims=True)

    near = (i < n) & (j < n) & (r < r_max)
    axis = d[near] / r[near, None]
    cosine = np.einsum("phc,pc->ph", arms[i[near]], axis)
    bonded = (cosine > np.cos(np.radians(angle_max))).any(axis=1)  # NaN compares as False
    return oxygen[i[near][bonded]], oxygen[j[near][bonded]]


def hydrogen_bonds(
    frames: Iterable[Atoms], *, r_max: float = 3.5, angle_max: float = 30.0
) -> HydrogenBonds:
    """Hydrogen bonds per molecule over a trajectory; see `frame_hydrogen_bonds`."""
    series, histogram = [], np.zeros(1)
    for atoms in frames:
        donors, acceptors = frame_hydrogen_bonds(atoms, r_max=r_max, angle_max=angle_max)
        n_molecules = int((atoms.numbers == 8).sum())
        series.append(2.0 * len(donors) / n_molecules)
        both = np.bincount(np.concatenate([donors, acceptors]), minlength=len(atoms))
        found = np.bincount(both[atoms.numbers == 8]) / n_molecules
        wide = np.zeros(max(len(histogram), len(found)))
        wide[: len(histogram)] += histogram
        wide[: len(found)] += found
        histogram = wide
    if not series:
        raise ValueError("`frames` must hold at least one structure, got none")
    values = np.array(series)
    return HydrogenBonds(block_mean(values), values, histogram / len(series))
