"""Overlapping atoms."""

from __future__ import annotations

from typing import Final

from ase.data import chemical_symbols

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import Edges, System, edge_vectors

#: Atoms closer than this in Å overlap. The shortest bond, H2, has 0.74 Å, and two protons at 0.1 Å
#: repel each other by 144 eV: no potential is trained there, and a doubled atom is likely.
OVERLAP: Final = 0.1


def require_separation(system: System, edges: Edges) -> None:
    """Raise `InvalidStructureError` for atoms closer than `OVERLAP`, naming the closest pair."""
    if edges.n_edges == 0:
        return
    distances2 = edge_vectors(system, edges).square().sum(-1)  # (n_edges,)
    worst = int(distances2.argmin())
    distance = float(distances2[worst].sqrt())
    if distance >= OVERLAP:
        return
    i, j = edges.edge_index[:, worst].tolist()
    shift = edges.cell_shifts[worst].tolist()
    image = f", shifted by {shift} cells," if any(shift) else ""
    a, b = (symbol(int(system.numbers[k])) for k in (i, j))
    raise InvalidStructureError(
        f"atoms must be at least {OVERLAP} Å apart, but atoms {i} ({a}) and {j} ({b}){image} are "
        f"at {distance:.3g} Å; look for an atom that is there twice, or a cell that is too small"
    )


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number; numbers that no element has stay numbers."""
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"
