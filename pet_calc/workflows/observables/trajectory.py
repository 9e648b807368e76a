"""Frames of a trajectory, and what several observables derive from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.workflows.observables.config import AnalysisConfig
from pet_calc.workflows.observables.motion import Motion, unwrap
from pet_calc.workflows.observables.order import Shells, crystal_shells, mean_structure
from pet_calc.workflows.observables.thermodynamics import kinetic_temperature
from pet_calc.workflows.observables.water import is_water

Array = NDArray[np.float64]


class Trajectory:
    """Frames, and what several observables derive from them, computed once."""

    def __init__(self, frames: Sequence[Atoms], config: AnalysisConfig) -> None:
        self.frames = list(frames)
        self.config = config
        self._motion: Motion | None = None
        self._shells: Shells | None = None

    @property
    def water(self) -> bool:
        """Whether it is water."""
        return is_water(self.frames[0])

    @property
    def motion(self) -> Motion:
        """Unwrapped paths in time."""
        if self.config.interval is None:
            raise ValueError("the time between frames is not known; give it")
        return self.paths

    @property
    def paths(self) -> Motion:
        """Unwrapped paths, whose time axis has no meaning without an interval."""
        if self._motion is None:
            self._motion = unwrap(self.frames, self.config.interval or 1.0)
        return self._motion

    @property
    def shells(self) -> Shells:
        """Coordination shells of its crystal."""
        if self._shells is None:
            sites = mean_structure(self.paths, self.frames[0].pbc.tolist())
            self._shells = crystal_shells(sites, self.config.shells, self.config.crystal)
        return self._shells

    @property
    def symbols(self) -> list[str]:
        """Elements, in alphabetical order."""
        return sorted(set(self.frames[0].get_chemical_symbols()))

    @property
    def volumes(self) -> Array:
        """Volumes of the frames, Å³."""
        return np.array([abs(a.cell.volume) for a in self.frames])

    @property
    def changing_cell(self) -> bool:
        """Whether the cell changes."""
        first = self.frames[0].cell.array
        return any(np.abs(a.cell.array - first).max() > 1e-6 for a in self.frames)

    @property
    def potential(self) -> Array:
        """Potential energies of the frames, eV."""
        results = [{} if a.calc is None else a.calc.results for a in self.frames]
        if any("energy" not in r for r in results):
            raise ValueError("the frames hold no energies")
        energies = np.array([float(r["energy"]) for r in results])
        if not energies.any():  # some readers set absent energies to zero
            raise ValueError("the energies of all frames are zero")
        return energies

    @property
    def temperature(self) -> float:
        """Temperature, K."""
        if self.config.temperature is not None:
            return self.config.temperature
        found = kinetic_temperature(self.frames)
        if found is None:
            raise ValueError("the frames hold no momenta to take the temperature from; give it")
        return found.value
