"""Minimum-energy path between two minima, and its barrier: the nudged elastic band.

ASE's ``NEB`` with the improved tangent [Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000)],
a climbing image [Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 (2000)] and a first
path by the image-dependent pair potential [Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)].
The images are computed in one call of the model where the calculator allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.mep import NEB, idpp_interpolate
from ase.optimize import FIRE
from ase.utils.forcecurve import fit_images
from numpy.typing import NDArray

from pet_calc.errors import InvalidStructureError, SimulationError
from pet_calc.workflows.guards import check_structure
from pet_calc.workflows.mechanics.config import NebConfig
from pet_calc.workflows.progress import OnProgress, Progress, in_stage
from pet_calc.workflows.relax import RelaxConfig, relax_all
from pet_calc.workflows.relax.many import with_calculator
from pet_calc.workflows.relax.reference import require_usable
from pet_calc.workflows.relax.result import frozen_copy
from pet_calc.workflows.relax.single import results

Array = NDArray[np.float64]

#: The climbing begins when the band feels no force above this multiple of `fmax`.
CLIMB_FROM: Final = 4.0

#: End points closer than this in Å, for every atom, are the same.
SAME: Final = 0.05


@dataclass(frozen=True, eq=False)
class MinimumEnergyPath:
    """A band of images with their energies.

    Attributes
    ----------
    frames : list of Atoms
        End points and images between them, with their results.
    path : array, shape (n,)
        Length of the path up to each image in Å.
    energies : array, shape (n,)
        In eV, relative to the first.
    fit_path, fit_energies : array
        Cubic curve through the images that has their forces as slopes.
    fmax : float
        Largest force of the band in eV/Å.
    steps : int
        Steps of the band.
    converged : bool
        Whether `fmax` was reached.
    """

    frames: list[Atoms]
    path: Array
    energies: Array
    fit_path: Array
    fit_energies: Array
    fmax: float
    steps: int
    converged: bool

    @property
    def barrier(self) -> float:
        """Energy of the highest image above the first end point, in eV."""
        return float(self.energies.max())

    @property
    def reverse_barrier(self) -> float:
        """Energy of the highest image above the last end point, in eV."""
        return float(self.energies.max() - self.energies[-1])

    @property
    def reaction_energy(self) -> float:
        """Energy of the last end point above the first, in eV."""
        return float(self.energies[-1])

    @property
    def saddle(self) -> int:
        """Index of the highest image."""
        return int(self.energies.argmax())


class _Band(NEB):
    """ASE's band whose images are computed together, each looked at by the guards."""

    def __init__(self, images: list[Atoms], calculator: Any, spring: float) -> None:
        super().__init__(images, k=spring, method="improvedtangent", climb=False)
        self.calculator = calculator

    def get_forces(self) -> Any:
        """Forces of the band ((n_images − 2) · n_atoms, 3) in eV/Å."""
        compute(self.images[1:-1], self.calculator)
        return super().get_forces()


def compute(images: list[Atoms], calculator: Any) -> None:
    """Give each image a calculator that holds its results.

    Raises
    ------
    SimulationError
        If the potential or a guard refuses one of them.
    """
    outcomes = relax_all(with_calculator(images, calculator), RelaxConfig(steps=0))
    for k, (image, outcome) in enumerate(zip(images, outcomes, strict=True)):
        if outcome.atoms is None:
            raise SimulationError(
                f"image {k + 1} of the band cannot be computed ({outcome.reason}); try more "
                "images, another interpolation, or end points with the same order of atoms"
            )
        image.calc = outcome.atoms.calc


def minimum_energy_path(
    initial: Atoms,
    final: Atoms,
    config: NebConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> MinimumEnergyPath:
    """Path of least energy between two minima of the same atoms in the same cell.

    Parameters
    ----------
    initial : Atoms
        First end point, with the calculator of the whole path. Not changed.
    final : Atoms
        Last end point, with the atoms in the same order; constraints of both are kept.
    config : NebConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of the end points, then of each step of the band; its values are
        ``fmax_eV_per_A`` and ``barrier_eV``.

    Raises
    ------
    InvalidStructureError
        If the end points do not belong together.
    SimulationError
        If an end point does not converge, or both relax to one and the same.
    """
    config = config or NebConfig()
    require_pair(initial, final)
    ends = relax_all(
        with_calculator([initial, final], initial.calc),
        RelaxConfig(fmax=config.end_fmax, steps=config.steps if config.relax else 0),
        on_progress=in_stage(on_progress, "end points"),
    )
    first, last = (
        require_usable(end, f"the {name} end point", moves=config.relax)
        for end, name in zip(ends, ("first", "last"), strict=True)
    )
    images = first_path(first, nearest_image(first, last), config)
    band = _Band(images, initial.calc, config.spring)
    steps, force = optimized(band, config, on_progress)
    compute(images[1:-1], initial.calc)
    curve = fit_images(images)
    return MinimumEnergyPath(
        frames=images,
        path=np.asarray(curve.path),
        energies=np.asarray(curve.energies),
        fit_path=np.asarray(curve.fit_path),
        fit_energies=np.asarray(curve.fit_energies),
        fmax=force,
        steps=steps,
        converged=force < config.fmax,
    )


def first_path(first: Atoms, last: Atoms, config: NebConfig) -> list[Atoms]:
    """End points and images between them, interpolated."""
    images = [first, *(first.copy() for _ in range(config.images)), last]
    path = NEB(images, method="improvedtangent")
    # the last end point is the image wanted: looked for again, a tie could fall to the other side
    path.interpolate("linear", mic=False, apply_constraint=True)
    if config.interpolation == "idpp":
        idpp_interpolate(path, traj=None, log=None, mic=bool(first.pbc.any()))
    return images


def optimized(band: _Band, config: NebConfig, on_progress: OnProgress | None) -> tuple[int, float]:
    """Move a band to its path; the steps taken and the largest force left, eV/Å."""
    steps, force = 0, np.inf
    # to climb while the band is far from its path could lead the image away from it
    stages = [(False, CLIMB_FROM), (True, 1.0)] if config.climb else [(False, 1.0)]
    for climb, factor in stages:
        band.climb = climb
        with FIRE(band, logfile=None) as optimizer:
            left = config.steps - steps
            for _ in optimizer.irun(fmax=factor * config.fmax, steps=left):
                rows = optimizer.optimizable.get_gradient().reshape(-1, 3)
                force = float(np.linalg.norm(rows, axis=1).max())
                if on_progress is not None:
                    energies = np.asarray(band.energies)
                    barrier = float(energies.max() - energies[0])
                    text = f"largest force {force:.3f} eV/Å, barrier {barrier:.3f} eV"
                    values = {"fmax_eV_per_A": force, "barrier_eV": barrier}
                    done = steps + optimizer.nsteps
                    on_progress(Progress("band", done, config.steps, text, values))
            steps += optimizer.nsteps
    return steps, force


def require_pair(initial: Atoms, final: Atoms) -> None:
    """Raise `InvalidStructureError` unless both are sound, the same atoms, and in the same cell."""
    for end in (initial, final):
        check_structure(end)
    if len(initial) != len(final) or (initial.numbers != final.numbers).any():
        raise InvalidStructureError(
            f"both end points must have the same atoms in the same order, got "
            f"{initial.get_chemical_formula()} ({len(initial)}) and "
            f"{final.get_chemical_formula()} ({len(final)}); sort one like the other"
        )
    if (initial.pbc != final.pbc).any() or not np.allclose(
        initial.cell.array, final.cell.array, atol=1e-6
    ):
        raise InvalidStructureError(
            "both end points must have the same cell and periodicity; the cell is fixed in a "
            "nudged elastic band, so set one to the other's before"
        )


def nearest_image(first: Atoms, last: Atoms) -> Atoms:
    """The last end point with each atom at its periodic image nearest to the first end point.

    Raises
    ------
    SimulationError
        If no atom moves from one end point to the other.
    """
    moved, _ = find_mic(last.positions - first.positions, first.cell, first.pbc)
    farthest = float(np.linalg.norm(moved, axis=1).max())
    if farthest < SAME:
        raise SimulationError(
            f"the end points must differ, but no atom is more than {farthest:.3f} Å apart: they "
            "were the same, or relaxed to one minimum"
        )
    energy, forces, stress = results(last)
    shifted = last.copy()
    shifted.set_positions(first.positions + moved, apply_constraint=False)
    return frozen_copy(shifted, energy, forces, stress)


def neb_summary(result: MinimumEnergyPath) -> dict[str, Any]:
    """Barrier and path as plain values with units in their names."""
    return {
        "formula": result.frames[0].get_chemical_formula(),
        "barrier_eV": result.barrier,
        "reverse_barrier_eV": result.reverse_barrier,
        "reaction_energy_eV": result.reaction_energy,
        "saddle_image": result.saddle,
        "path_A": result.path.tolist(),
        "energies_eV": result.energies.tolist(),
        "fmax_eV_per_A": result.fmax,
        "steps": result.steps,
        "converged": result.converged,
    }
