"""Geometries that a proposal may have: distances, volume, shape and bounds of the cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms


@dataclass(frozen=True)
class GeometryWindow:
    """Limits on a crystal's geometry.

    Attributes
    ----------
    contact : float
        Minimum distance of two atoms of a proposal over the sum of their covalent radii.
    volume : (float, float)
        Least and largest volume over `Composition.volume`.
    aspect : float
        Largest ratio of the distances between opposite faces of the cell.
    lengths : (float, float)
        Minimum and maximum cell length, Å.
    angles : (float, float)
        Bounds of each angle in degrees.
    """

    contact: float = 0.5
    volume: tuple[float, float] = (0.3, 3.0)
    aspect: float = 6.0
    lengths: tuple[float, float] = (0.0, math.inf)
    angles: tuple[float, float] = (20.0, 160.0)

    def __post_init__(self) -> None:
        for name in ("volume", "lengths", "angles"):
            low, high = getattr(self, name)
            if not 0 <= low < high:
                raise ValueError(f"`{name}` must rise from 0 or more, got {low} to {high}")
        if self.contact < 0 or self.aspect < 1:
            raise ValueError(
                f"`contact` must not be negative and `aspect` not below 1, got {self.contact}, "
                f"{self.aspect}"
            )

    def objection(self, atoms: Atoms) -> str:
        """Why a crystal is outside of the window; empty if it is inside."""
        # the limits alone, which --help shows, need neither NumPy nor ASE
        import numpy as np

        from pet_calc.crystals.generation.composition import Composition

        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            return "positions or cell are not finite"
        cellpar = atoms.cell.cellpar()
        for name, values, (low, high) in (
            ("length", cellpar[:3], self.lengths),
            ("angle", cellpar[3:], self.angles),
        ):
            for value in values:
                if not low <= value <= high:
                    return f"cell {name} {value:.2f} is not between {low:g} and {high:g}"
        ratio = atoms.get_volume() / Composition.from_numbers(atoms.numbers).volume
        if not self.volume[0] <= ratio <= self.volume[1]:
            return (
                f"volume is {ratio:.2f} of that expected from covalent radii, not between "
                f"{self.volume[0]:g} and {self.volume[1]:g}"
            )
        heights = face_distances(atoms)
        if heights.max() > self.aspect * heights.min():
            return f"cell aspect {heights.max() / heights.min():.1f} is above {self.aspect:g}"
        closest = closest_contact(atoms, self.contact)
        if closest < self.contact:
            return f"atoms at {closest:.2f} of the sum of their covalent radii"
        return ""


def face_distances(atoms: Atoms) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Distances between opposite faces of the cell in Å, (3,)."""
    import numpy as np

    return 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def closest_contact(atoms: Atoms, largest: float = 1.0) -> float:
    """Least distance of two atoms, images included, over the sum of their covalent radii.

    Contacts above `largest` are not looked for; infinite if there is none below.
    """
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    radii = covalent_radii[atoms.numbers]
    i, j, d = neighbor_list("ijd", atoms, largest * radii, self_interaction=False)
    return float((d / (radii[i] + radii[j])).min()) if len(d) else math.inf
