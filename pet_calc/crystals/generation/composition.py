"""What a crystal is to be made of, and how much room its atoms take."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.formula import Formula
from numpy.typing import NDArray

#: Volume per atom over r³, r the covalent radius: median over 13,495 crystals near the hull.
VOLUME_PER_CUBED_RADIUS: Final = 6.2

#: Atoms of each element in the formulas of a chemical system.
MOST_IN_SYSTEM: Final = 3


@dataclass(frozen=True)
class Composition:
    """Atoms of a unit cell.

    Attributes
    ----------
    counts : tuple of (int, int)
        Atomic number and number of atoms, by atomic number.
    """

    counts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, formula: str, z: int = 1) -> Composition:
        """From a formula such as ``"Ca(OH)2"`` and the number of formula units.

        Raises
        ------
        ValueError
            If it is no formula, or `z` is below 1.
        """
        if z < 1:
            raise ValueError(f"a cell holds at least 1 formula unit, got z = {z}")
        try:
            counted = Formula(formula).count()
            found = {atomic_numbers[s]: n * z for s, n in counted.items()}
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{formula!r} is no chemical formula; write one such as SrTiO3"
            ) from error
        found.pop(0, None)
        if not found:
            raise ValueError(f"the formula {formula!r} has no atoms")
        return cls(tuple(sorted(found.items())))

    @classmethod
    def all_of(cls, formulas: str, z: int = 1) -> tuple[Composition, ...]:
        """From formulas separated by commas; ``"Na-Cl"`` is the chemical system.

        A chemical system stands for all reduced formulas of all its elements with at most
        `MOST_IN_SYSTEM` atoms of each.
        """
        found: list[Composition] = []
        for part in (p.strip() for p in formulas.split(",")):
            if "-" not in part:
                found.append(cls.of(part, z))
                continue
            symbols = [s.strip() for s in part.split("-")]
            if len(set(symbols)) < len(symbols) or any(s not in atomic_numbers for s in symbols):
                raise ValueError(f"a chemical system is written as Na-Cl, got {part!r}")
            for counts in itertools.product(range(1, MOST_IN_SYSTEM + 1), repeat=len(symbols)):
                if math.gcd(*counts) == 1:
                    pairs = zip(symbols, counts, strict=True)
                    found.append(cls.of("".join(f"{s}{k}" for s, k in pairs), z))
        return tuple(dict.fromkeys(found))

    @classmethod
    def from_numbers(cls, numbers: NDArray[np.int64]) -> Composition:
        """From atomic numbers of all atoms."""
        kinds, counts = np.unique(numbers, return_counts=True)
        return cls(tuple(zip(kinds.tolist(), counts.tolist(), strict=True)))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic number of each atom, in order."""
        return np.repeat([z for z, _ in self.counts], [n for _, n in self.counts]).astype(np.int64)

    @property
    def n_atoms(self) -> int:
        """Atoms in the cell."""
        return sum(n for _, n in self.counts)

    @property
    def units(self) -> int:
        """Number of reduced formula units, Z."""
        return math.gcd(*(n for _, n in self.counts))

    @property
    def formula(self) -> str:
        """Reduced formula, as ASE orders metals before non-metals."""
        z = self.units
        return Formula.from_dict({chemical_symbols[e]: n // z for e, n in self.counts}).format(
            "metal"
        )

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols by atomic number."""
        return tuple(chemical_symbols[z] for z, _ in self.counts)

    @property
    def anonymous(self) -> tuple[int, ...]:
        """Sorted counts of the reduced formula: (1, 1, 3) for ABX3."""
        return tuple(sorted(n // self.units for _, n in self.counts))

    @property
    def volume(self) -> float:
        """Estimated volume of the cell in Å³ from covalent radii."""
        return VOLUME_PER_CUBED_RADIUS * float((covalent_radii[self.numbers] ** 3).sum())
