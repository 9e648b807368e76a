"""Unwrapped motion of atoms from frames of any origin, also in a cell that changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.neighbors.vesin_cpu import complete_cell
from pet_calc.units import FS

Array = NDArray[np.float64]

#: Largest part of a lattice vector that an atom may cross between two frames.
LARGEST_STEP = 0.4
#: Largest strain of the cell between two frames; a flip of a tilted cell is far beyond it.
LARGEST_STRAIN = 0.2


@dataclass(frozen=True, eq=False)
class Motion:
    """Continuous paths of the atoms.

    Attributes
    ----------
    numbers : array, shape (n_atoms,)
        Atomic numbers; those of the first frame where species change places.
    species_change : bool
        Whether the species at some index changes on the way, as swap moves do.
    masses : array, shape (n_atoms,)
        amu.
    positions : array, shape (n_frames, n_atoms, 3)
        Å, continuous across cell boundaries; the first frame as given.
    cells : array, shape (n_frames, 3, 3)
        Lattice vectors as rows, Å.
    velocities : array, shape (n_frames, n_atoms, 3), or None
        Å/fs, from the momenta of the frames where all have them.
    interval : float
        Time between frames, fs.
    """

    numbers: NDArray[np.int64]
    species_change: bool
    masses: Array
    positions: Array
    cells: Array
    velocities: Array | None
    interval: float

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def centered(self) -> Array:
        """Positions less the path of the center of mass, (n_frames, n_atoms, 3), Å."""
        moved = self.positions - self.positions[0]
        return self.positions - np.average(moved, axis=1, weights=self.masses)[:, None]


def unwrap(frames: Iterable[Atoms], interval: float = 1.0) -> Motion:
    r"""Follow the atoms from frame to frame through the nearest image.

    .. math:: r_{t+1} = r_t + \left(\Delta s - \lfloor \Delta s \rceil\right) \tfrac12 (h_t +
       h_{t+1}), \qquad \Delta s = x_{t+1} h_{t+1}^{-1} - x_t h_t^{-1}

    with x the positions as given (wrapped, unwrapped, or both), h the cells, and rounding in the
    periodic directions only. Differences of fractional coordinates leave the dilation of a
    fluctuating cell out of the displacements: it is no diffusion, and adding it up frame by frame
    would look like some (von Bülow et al., J. Chem. Phys. 153, 021101 (2020)). In a constant cell
    the paths are exact.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        The same atoms in the same order.
    interval : float
        Time between frames, fs.

    Raises
    ------
    ValueError
        If atoms move by more than 0.4 of a lattice vector between frames, so that the nearest image
        may be the wrong one; if the cell jumps; or if the atoms are not the same.
    """
    if not interval > 0:
        raise ValueError(f"`interval` must be positive, got {interval} fs")
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise ValueError("`frames` must hold at least one structure, got none")
    numbers, pbc = first.numbers.copy(), first.pbc.copy()
    cell = complete_cell(first.cell.array, pbc)
    scaled = first.positions @ np.linalg.inv(cell)
    positions, cells = [first.get_positions()], [first.cell.array.copy()]
    velocities = [_velocities(first)]
    changes = False
    for index, atoms in enumerate(images, start=1):
        if len(atoms) != len(numbers) or (atoms.pbc != pbc).any():
            raise ValueError(
                f"all frames must hold the same atoms in the same order, but frame {index} has "
                f"{len(atoms)} atoms and pbc={atoms.pbc.tolist()}, the first {len(numbers)} and "
                f"pbc={pbc.tolist()}"
            )
        changes = changes or bool((atoms.numbers != numbers).any())
        next_cell = complete_cell(atoms.cell.array, pbc)
        strain = float(np.abs(np.linalg.solve(cell, next_cell) - np.eye(3)).max())
        if strain > LARGEST_STRAIN:
            raise ValueError(
                f"the cell must change gradually, but from frame {index - 1} to {index} it is "
                f"strained by {strain:.2f}; use frames closer in time, of one run"
            )
        next_scaled = atoms.positions @ np.linalg.inv(next_cell)
        step = next_scaled - scaled
        step[:, pbc] -= np.round(step[:, pbc])
        largest = float(np.abs(step[:, pbc]).max(initial=0.0))
        if not largest <= LARGEST_STEP:
            raise ValueError(
                f"atoms may cross at most {LARGEST_STEP} of a lattice vector between frames to be "
                f"followed, but one crosses {largest:.2f} from frame {index - 1} to {index}; the "
                "frames are too sparse, or not consecutive ones of one run"
            )
        positions.append(positions[-1] + step @ (0.5 * (cell + next_cell)))
        cells.append(atoms.cell.array.copy())
        velocities.append(_velocities(atoms))
        cell, scaled = next_cell, next_scaled
    known = [v for v in velocities if v is not None]
    return Motion(
        numbers=numbers.astype(np.int64),
        species_change=changes,
        masses=first.get_masses(),
        positions=np.array(positions),
        cells=np.array(cells),
        velocities=np.array(known) if len(known) == len(velocities) else None,
        interval=float(interval),
    )


def _velocities(atoms: Atoms) -> Array | None:
    """Å/fs; None without momenta."""
    if not atoms.has("momenta") or not atoms.arrays["momenta"].any():
        return None
    return np.asarray(atoms.get_velocities() * FS)
