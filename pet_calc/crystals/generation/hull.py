"""Energy above the convex hull of competing phases, by linear programming.

For a composition x the hull energy is min Σ λ_i E_i subject to Σ λ_i x_i = x, λ ≥ 0, over the
phases i whose elements are among those of x (E per atom, x atomic fractions). Energies of one
hull come from one calculator; `Hull.origin` says from which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import linprog

from pet_calc.crystals.generation.composition import Composition
from pet_calc.errors import DatasetError, SimulationError
from pet_calc.io.models.files import write_atomically

FORMAT: Final = "pet_calc-hull-1"


@dataclass(frozen=True)
class Phase:
    """A competing phase.

    Attributes
    ----------
    composition : Composition
    energy : float
        eV per atom.
    name : str
        Where it is from.
    """

    composition: Composition
    energy: float
    name: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.energy):
            raise ValueError(f"the energy of a phase must be finite, {self.name} has {self.energy}")


@dataclass(frozen=True)
class AboveHull:
    """Energy of a crystal above the hull.

    Attributes
    ----------
    energy : float
        eV/atom; negative if it is below all competitors, NaN if `reason` says why there is none.
    decomposition : tuple of (str, float)
        Competitors and their shares of the atoms.
    reason : str
    """

    energy: float
    decomposition: tuple[tuple[str, float], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Hull:
    """Competing phases with energies of one calculator.

    Attributes
    ----------
    phases : tuple of Phase
    origin : dict
        Calculator, model and SHA-256 that the energies are from.
    """

    phases: tuple[Phase, ...]
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def compounds(self) -> bool:
        """Whether there are competitors besides the elements."""
        return any(len(p.composition.counts) > 1 for p in self.phases)

    def above(self, composition: Composition, energy: float) -> AboveHull:
        """Energy above the hull of a crystal of `energy` eV/atom."""
        if not math.isfinite(energy):
            return AboveHull(math.nan, reason="the crystal has no energy")
        elements = [z for z, _ in composition.counts]
        inside = [p for p in self.phases if {z for z, _ in p.composition.counts} <= set(elements)]
        lone = {p.composition.counts[0][0] for p in inside if len(p.composition.counts) == 1}
        missing = [s for z, s in zip(elements, composition.elements, strict=True) if z not in lone]
        if missing:
            return AboveHull(math.nan, reason=f"no reference energy of {', '.join(missing)}")
        fractions = np.array([_fractions(p.composition, elements) for p in inside])
        energies = np.array([p.energy for p in inside])
        solution = linprog(
            energies, A_eq=fractions.T, b_eq=_fractions(composition, elements), method="highs"
        )
        if not solution.success:
            raise SimulationError(
                f"the hull at {composition.formula} was not found: {solution.message}"
            )
        shares = tuple(
            (p.composition.formula, float(x))
            for p, x in zip(inside, solution.x, strict=True)
            if x > 1e-9
        )
        return AboveHull(energy - float(solution.fun), shares)

    def with_phases(self, phases: Iterable[Phase]) -> Hull:
        """The hull with further competitors."""
        return Hull((*self.phases, *phases), self.origin)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        values = {
            "format": FORMAT,
            "origin": self.origin,
            "phases": [
                {"counts": p.composition.counts, "energy_eV_per_atom": p.energy, "name": p.name}
                for p in self.phases
            ],
        }
        write_atomically(path, (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Hull:
        """Read what `save` wrote.

        Raises
        ------
        DatasetError
            If it is no hull.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ValueError(f"format is {values['format']!r}, not {FORMAT!r}")
            phases = tuple(
                Phase(
                    Composition(tuple((int(z), int(n)) for z, n in p["counts"])),
                    float(p["energy_eV_per_atom"]),
                    p["name"],
                )
                for p in values["phases"]
            )
            return cls(phases, values["origin"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} is no hull ({error}); make one with `pet-calc hull`"
            ) from error


def _fractions(composition: Composition, elements: list[int]) -> list[float]:
    counts = dict(composition.counts)
    return [counts.get(z, 0) / composition.n_atoms for z in elements]
