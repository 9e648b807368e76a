"""What a potential was trained on: elements, shortest distances, and volumes per atom.

A neural potential answers outside of its training data as readily as inside. The domain, recorded
beside the weights, lets guards and reports say when that happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from pet_calc.errors import CheckpointError, DatasetError
from pet_calc.neighbors.vesin_cpu import vesin_half_list


@dataclass(frozen=True)
class TrainingDomain:
    """Range of the training structures.

    Attributes
    ----------
    elements : tuple of str
        Chemical symbols, by atomic number.
    shortest_distances : dict
        (symbol, symbol), by atomic number, to the shortest distance in Å; a pair that never came
        within the cutoff is absent.
    volume_per_atom : tuple of float, or None
        Smallest and largest volume per atom in Å³ of the structures that are periodic in three
        dimensions; None if there are none.
    n_structures : int
        How many structures it was measured on.
    """

    elements: tuple[str, ...]
    shortest_distances: dict[tuple[str, str], float]
    volume_per_atom: tuple[float, float] | None
    n_structures: int

    def shortest(self, a: str, b: str) -> float | None:
        """Shortest distance of two elements in Å, in either order; None if never within reach."""
        return self.shortest_distances.get(ordered(a, b))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file; lengths to 10⁻⁴ Å."""
        volumes = self.volume_per_atom
        return {
            "elements": list(self.elements),
            "shortest_distances": {
                f"{a}-{b}": round(r, 4) for (a, b), r in self.shortest_distances.items()
            },
            "volume_per_atom": None if volumes is None else [round(v, 4) for v in volumes],
            "n_structures": self.n_structures,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingDomain:
        """From what `to_dict` gave.

        Raises
        ------
        CheckpointError
            If something is missing or malformed.
        """
        try:
            volumes = values.get("volume_per_atom")
            distances = {}
            for pair, distance in values["shortest_distances"].items():
                a, b = pair.split("-")
                distances[ordered(a, b)] = float(distance)
            return cls(
                elements=tuple(sorted(values["elements"], key=chemical_symbols.index)),
                shortest_distances=distances,
                volume_per_atom=None if volumes is None else (float(volumes[0]), float(volumes[1])),
                n_structures=int(values["n_structures"]),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"a training domain needs elements, shortest_distances ('H-O' = Å), "
                f"volume_per_atom (two numbers of Å³) and n_structures, got {values} ({error!r})"
            ) from error


def ordered(a: str, b: str) -> tuple[str, str]:
    """Two chemical symbols by atomic number."""
    first, second = sorted((a, b), key=chemical_symbols.index)
    return first, second


def measure_domain(structures: Iterable[Atoms], reach: float) -> TrainingDomain:
    """The domain that structures span.

    Parameters
    ----------
    structures : iterable of ase.Atoms
    reach : float
        Distances up to this one are looked at, in Å; the cutoff of the potential.

    Raises
    ------
    DatasetError
        If there is no structure.
    """
    numbers: set[int] = set()
    shortest: dict[tuple[int, int], float] = {}
    volumes: list[float] = []
    count = 0
    for atoms in structures:
        count += 1
        numbers.update(atoms.numbers.tolist())
        if atoms.pbc.all():
            volumes.append(atoms.get_volume() / len(atoms))
        cell = atoms.cell.array
        i, j, shifts = vesin_half_list(atoms.positions, cell, atoms.pbc, reach)
        distances = np.linalg.norm(
            atoms.positions[j] - atoms.positions[i] + shifts @ cell, axis=1
        )  # (n_pairs,)
        pairs = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
        for a, b in np.unique(pairs, axis=0).tolist():
            found = float(distances[(pairs == (a, b)).all(axis=1)].min())
            shortest[a, b] = min(found, shortest.get((a, b), np.inf))
    if count == 0:
        raise DatasetError("a training domain is measured on structures, got none")
    return TrainingDomain(
        elements=tuple(chemical_symbols[z] for z in sorted(numbers)),
        shortest_distances={
            (chemical_symbols[a], chemical_symbols[b]): r for (a, b), r in sorted(shortest.items())
        },
        volume_per_atom=(min(volumes), max(volumes)) if volumes else None,
        n_structures=count,
    )


def training_domain(calculator: object) -> TrainingDomain | None:
    """Domain that a calculator's potential was trained on; None where it is not recorded."""
    found = getattr(calculator, "training_domain", None)
    return found if isinstance(found, TrainingDomain) else None
