"""Structure of liquid water, beside experiment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from pet_calc.workflows.observables.rdf import (
    Peak,
    RadialDistribution,
    first_peak,
    partial_rdf,
)


@dataclass(frozen=True)
class ExperimentalPeak:
    """Measured first peak of a g(r): position (Å) and height, with their uncertainties."""

    position: float
    position_error: float
    height: float
    height_error: float
    source: str


SKINNER_2013 = ExperimentalPeak(
    position=2.80,
    position_error=0.01,
    height=2.57,
    height_error=0.05,
    source="Skinner et al., J. Chem. Phys. 138, 074506 (2013)",
)
"""First peak of g_OO of liquid water at ambient conditions, from X-ray diffraction (abstract)."""


@dataclass(frozen=True, eq=False)
class WaterStructure:
    """The three partial radial distribution functions of water and the first peak of g_OO."""

    g_OO: RadialDistribution
    g_OH: RadialDistribution
    g_HH: RadialDistribution
    first_peak: Peak


def water_structure(
    frames: Iterable[Atoms], *, r_max: float | None = None, n_bins: int | None = None
) -> WaterStructure:
    """g_OO, g_OH and g_HH of water, and where g_OO peaks first.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        Periodic structures with oxygen and hydrogen.
    r_max : float, optional
        Å; by default half the cell.
    n_bins : int, optional
        By default bins of about 0.05 Å.
    """
    images = list(frames)
    if n_bins is None:
        n_bins = max(20, round(_range(images, r_max) / 0.05))
    g_OO, g_OH, g_HH = (
        partial_rdf(images, a, b, r_max=r_max, n_bins=n_bins)
        for a, b in (("O", "O"), ("O", "H"), ("H", "H"))
    )
    # the first shell of water lies between 2.4 and 3.4 Å in every model and phase of interest
    return WaterStructure(g_OO, g_OH, g_HH, first_peak(g_OO, r_min=2.2, r_max=3.5))


def _range(images: list[Atoms], r_max: float | None) -> float:
    if r_max is not None or not images:
        return 6.0 if r_max is None else r_max
    return float(np.linalg.norm(images[0].cell.array, axis=1).min()) / 2.0


def is_water(atoms: Atoms) -> bool:
    """Whether a structure is made of oxygen and hydrogen, 1 : 2, periodic in three directions."""
    n_oxygen = int((atoms.numbers == 8).sum())
    n_hydrogen = int((atoms.numbers == 1).sum())
    return bool(
        n_oxygen > 1
        and n_hydrogen == 2 * n_oxygen
        and n_oxygen + n_hydrogen == len(atoms)
        and atoms.pbc.all()
    )
