"""A periodic box of liquid water that molecular dynamics can start from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from scipy.special import erfc

Array = NDArray[np.float64]

MOLAR_MASS = 2 * 1.008 + 15.999
"""Molar mass of water, g/mol."""

LIQUID_OH, LIQUID_HOH = 0.98, np.deg2rad(105.5)
"""Geometry (Å, rad) of the molecules that are returned; near to what DFT gives in the liquid."""


@dataclass(frozen=True)
class RigidWater:
    r"""A three-site water model with a damped, shifted Coulomb interaction.

    The defaults are SPC/E (Berendsen, Grigera and Straatsma, J. Phys. Chem. 91, 6269 (1987)). Its
    charges interact here by the damped shifted force of Fennell and Gezelter, J. Chem. Phys. 124,
    234104 (2006), eq. 18, and its Lennard-Jones term is shifted to zero at the cutoff: short
    ranged and smooth, hence usable in boxes of any size.

    Attributes
    ----------
    sigma, epsilon : float
        Lennard-Jones parameters of O–O, Å and eV.
    charge : float
        Charge of a hydrogen, e; the oxygen has -2 of it.
    r_oh, angle : float
        Bond length, Å, and angle, rad.
    damping : float
        α of the damping, 1/Å.
    """

    sigma: float = 3.166
    epsilon: float = 0.650 * units.kJ / units.mol
    charge: float = 0.4238
    r_oh: float = 1.0
    angle: float = float(np.deg2rad(109.47))
    damping: float = 0.2

    def pair_energies(self, r: Array, cutoff: float) -> Array:
        """Energies of O–O, O–H and H–H, eV, shape (3, n), at distances `r` (n,) in Å."""
        alpha = self.damping
        slope = (
            erfc(alpha * cutoff) / cutoff**2
            + 2 * alpha / np.sqrt(np.pi) * np.exp(-((alpha * cutoff) ** 2)) / cutoff
        )
        coulomb = erfc(alpha * r) / r - erfc(alpha * cutoff) / cutoff + slope * (r - cutoff)
        coulomb *= self.charge**2 * units.Hartree * units.Bohr
        attraction, at_cutoff = (self.sigma / r) ** 6, (self.sigma / cutoff) ** 6
        lj = 4 * self.epsilon * (attraction**2 - attraction - at_cutoff**2 + at_cutoff)
        energies = np.stack([4 * coulomb + lj, -2 * coulomb, coulomb])
        return np.asarray(np.where(r < cutoff, energies, 0.0))


SPC_E = RigidWater()

# Closer than this (Å), the model is replaced by a linear wall: point charges have none at O–H and
# H–H, and one that slopes leads apart the atoms that start within it.
_CLOSEST = np.array([[1.8], [1.3], [1.4]])
_WALL = 50.0  # eV/Å


def water_box(
    molecules: int = 64,
    density: float = 1.0,
    seed: int = 0,
    *,
    sweeps: int | None = None,
    temperature: float = 300.0,
) -> Atoms:
    """A cubic box of water, equilibrated roughly with a classical model.

    Molecules with random orientations are put on a cubic lattice and moved by Metropolis Monte
    Carlo (rigid translations and rotations) with SPC/E, cooling from three times `temperature`.
    They end with hydrogen bonds, without overlaps, and in the geometry of the liquid. A model with
    flexible molecules still needs a picosecond or so to equilibrate.

    Parameters
    ----------
    molecules : int
        Number of molecules, at least 1. 64 take 1 s, 512 take 5 s.
    density : float
        g/cm³.
    seed : int
        The same seed gives the same box.
    sweeps : int, optional
        Monte Carlo moves per molecule; by default 500 for small boxes down to 60 for large ones.
    temperature : float
        K, at the end of the cooling.

    Returns
    -------
    ase.Atoms
        O, H, H of each molecule in turn; molecules are whole, their oxygen is inside the box.
    """
    if molecules < 1:
        raise ValueError(f"`molecules` must be at least 1, got {molecules}")
    if not np.isfinite(density) or not 0.0 < density <= 3.0:
        raise ValueError(f"`density` must lie between 0 and 3 g/cm³, got {density}")
    if sweeps is None:
        sweeps = min(500, max(60, 30_000 // molecules))
    if sweeps < 0:
        raise ValueError(f"`sweeps` must not be negative, got {sweeps}")
    if not np.isfinite(temperature) or temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature} K")
    rng = np.random.default_rng(seed)
    length = box_length(molecules, density)
    oxygen = lattice(molecules, length, rng)
    frames = random_rotations(molecules, rng)  # (n, 3, 3)
    if molecules > 1:
        oxygen, frames = equilibrate(oxygen, frames, length, rng, sweeps, temperature)
    sites = place(oxygen % length, frames, LIQUID_OH, float(LIQUID_HOH))
    return Atoms("OH2" * molecules, positions=sites.reshape(-1, 3), cell=[length] * 3, pbc=True)


def box_length(molecules: int, density: float) -> float:
    """Edge in Å of the cube that holds `molecules` of water at `density` g/cm³."""
    grams = molecules * MOLAR_MASS / units.mol  # units.mol is Avogadro's number in ASE
    return float((grams / density) ** (1 / 3) * 1e8)


def lattice(molecules: int, length: float, rng: np.random.Generator) -> Array:
    """Points (n, 3) on the simple, body- or face-centered cubic lattice that fits best."""
    bases = {
        1: np.zeros((1, 3)),
        2: np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        4: np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    }
    choices = [
        (k * (n := int(np.ceil((molecules / k) ** (1 / 3) - 1e-9))) ** 3, k, n) for k in bases
    ]
    sites, k, n = min(choices)
    corners = np.array(list(itertools.product(range(n), repeat=3)), dtype=np.float64)
    points = (corners[:, None, :] + bases[k] + 0.25).reshape(-1, 3) / n
    chosen = np.sort(rng.choice(sites, size=molecules, replace=False))
    return np.asarray(points[chosen] * length)


def random_rotations(n: int, rng: np.random.Generator) -> Array:
    """Uniform random rotation matrices (n, 3, 3), from normalized Gaussian quaternions."""
    q = rng.standard_normal((n, 4))
    return rotations(q / np.linalg.norm(q, axis=1, keepdims=True))


def rotations(q: Array) -> Array:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4), scalar part first."""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.asarray(np.moveaxis(np.array(rows), -1, 0))


def place(oxygen: Array, frames: Array, r_oh: float, angle: float) -> Array:
    """Sites O, H, H (n, 3, 3) of molecules whose bisector is the first axis of their frame."""
    x, y = np.cos(angle / 2), np.sin(angle / 2)
    body = r_oh * np.array([[0.0, 0.0, 0.0], [x, y, 0.0], [x, -y, 0.0]])
    return np.asarray(oxygen[:, None, :] + body @ np.swapaxes(frames, 1, 2))


class _PairTable:
    """Energies of a water model tabulated over the squared distance, 1e-3 Å² apart."""

    spacing = 1e-3

    def __init__(self, model: RigidWater, cutoff: float) -> None:
        self.cutoff2 = cutoff**2
        n = int(self.cutoff2 / self.spacing) + 2
        r = np.sqrt((np.arange(n) + 0.5) * self.spacing)
        table = np.stack(
            [
                model.pair_energies(np.maximum(r, closest), cutoff)[row]
                + _WALL * np.maximum(closest - r, 0.0)
                for row, closest in enumerate(_CLOSEST)
            ]
        )
        table[:, r >= cutoff] = 0.0
        self.flat = table.ravel()
        kind = np.array([[0, 1, 1], [1, 2, 2], [1, 2, 2]])
        self.offset = (n * kind)[:, None, :]  # (3 sites, 1, 3 sites)
        self.last = n - 1

    def energies(self, one: Array, others: Array, length: float) -> Array:
        """Energy of a molecule (3, 3) with each of the others (m, 3, 3), eV, shape (m,)."""
        d = others[None] - one[:, None, None, :]  # (3, m, 3, 3)
        d -= length * np.rint(d / length)
        index = (np.einsum("amsc,amsc->ams", d, d) / self.spacing).astype(np.int64)
        np.minimum(index, self.last, out=index)
        index += self.offset
        return np.asarray(self.flat[index].sum(axis=(0, 2)))


def equilibrate(
    oxygen: Array,
    frames: Array,
    length: float,
    rng: np.random.Generator,
    sweeps: int,
    temperature: float,
    model: RigidWater = SPC_E,
) -> tuple[Array, Array]:
    """Metropolis Monte Carlo of rigid molecules; new oxygens (n, 3) and frames (n, 3, 3).

    The energies of all pairs of molecules are kept in a matrix, so that a move costs one row.
    Moves adapt to an acceptance of about 40 % once per sweep.
    """
    n = len(oxygen)
    oxygen, frames = oxygen.copy(), frames.copy()
    table = _PairTable(model, min(length / 2, 9.0))
    sites = place(oxygen, frames, model.r_oh, model.angle)
    pairs = np.stack([table.energies(sites[i], sites, length) for i in range(n)])
    np.fill_diagonal(pairs, 0.0)  # a rigid molecule has no energy with itself
    shift, turn = 0.3, 0.4  # Å, rad
    for sweep in range(sweeps):
        progress = min(1.0, 1.5 * sweep / sweeps)  # the last third runs at the final temperature
        beta = 1.0 / (units.kB * temperature * 3.0 ** (1.0 - progress))
        steps = shift * rng.uniform(-1, 1, (n, 3))
        axes = turn / 2 * rng.uniform(-1, 1, (n, 3))
        q = np.concatenate([np.ones((n, 1)), axes], axis=1)
        turns = rotations(q / np.linalg.norm(q, axis=1, keepdims=True))
        threshold = -np.log1p(-rng.random(n)) / beta
        moved = oxygen + steps
        turned = turns @ frames
        trials = place(moved, turned, model.r_oh, model.angle)
        accepted = 0
        for i in range(n):
            row = table.energies(trials[i], sites, length)
            row[i] = 0.0
            if row.sum() - pairs[i].sum() < threshold[i]:
                pairs[i] = row
                pairs[:, i] = row
                sites[i] = trials[i]
                oxygen[i], frames[i] = moved[i], turned[i]
                accepted += 1
        factor = 1.1 if accepted > 0.4 * n else 0.9
        shift, turn = min(shift * factor, 0.6), min(turn * factor, 1.0)
    return oxygen, frames
