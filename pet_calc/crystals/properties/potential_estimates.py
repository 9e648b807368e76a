"""Energies per atom of fixed crystals by a potential, as estimates of a property.

Each crystal is evaluated once, in the orientation of `pet_calc.models.ecse.canonical`, so that the
estimate does not depend on how the crystal is turned, placed, ordered or cut into cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms
from torch import Tensor

from pet_calc.calculators.validation import require_elements
from pet_calc.geometry import Edges, System
from pet_calc.geometry.graph import BATCH_EDGES
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.io.structures.separation import require_separation
from pet_calc.models.ecse.canonical import canonical_energies
from pet_calc.neighbors import neighbor_list
from pet_calc.pretrained import load


class PotentialEstimates:
    """A potential that tells energies per atom; in float64, on the CPU.

    Parameters
    ----------
    name : str
        Of a potential, see `pet_calc.pretrained.load`, whose errors are raised.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.model = load(name, torch.float64).model

    def __call__(self, crystals: Sequence[Atoms]) -> Tensor:
        """Energies per atom (n_crystals,) in eV, float64.

        Raises
        ------
        InvalidStructureError
            For atoms that overlap.
        UnsupportedElementError
            For an element that the potential does not cover.
        """
        found: list[Tensor] = []
        waiting: list[tuple[System, Edges]] = []
        total = 0
        for atoms in crystals:
            system = system_from_atoms(atoms)
            require_elements(atoms, self.model.atomic_numbers, f"the potential {self.name}")
            edges = neighbor_list(system, self.model.cutoff)
            require_separation(system, edges)
            if waiting and total + edges.n_edges > BATCH_EDGES:
                found.append(self.together(waiting))
                waiting, total = [], 0
            waiting.append((system, edges))
            total += edges.n_edges
        if waiting:
            found.append(self.together(waiting))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def together(self, parts: Sequence[tuple[System, Edges]]) -> Tensor:
        """Energies per atom of crystals in one call of the network."""
        sizes = [s.n_atoms for s, _ in parts]
        system = System.concatenate([s for s, _ in parts])
        edges = Edges.concatenate([e for _, e in parts], sizes)
        with torch.no_grad():
            energies = canonical_energies(self.model, system, edges)
        return energies / torch.tensor(sizes, dtype=torch.float64)
