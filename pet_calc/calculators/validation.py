"""What a structure must fulfil to be computed, and its results to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from ase.data import chemical_symbols

from pet_calc.errors import InvalidStructureError, SimulationError, UnsupportedElementError
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.committee import Evaluation

#: Atoms closer than this in Å overlap. The shortest bond, H2, has 0.74 Å, and two protons at 0.1 Å
#: repel each other by 144 eV: what a potential says there is noise, and a doubled atom is likely.
OVERLAP: Final = 0.1


def checked_evaluation(
    model: EnergyModel, system: System, edges: Edges, evaluation: Evaluation = evaluate
) -> Results:
    """Energy, forces and stress of structures that the model can be asked about.

    Parameters
    ----------
    model : EnergyModel
    system : System
    edges : Edges
        Pairs closer than ``model.cutoff``.
    evaluation : callable
        What computes the results.

    Returns
    -------
    Results
        All of it finite, except for the stress where it is not defined (NaN).

    Raises
    ------
    UnsupportedElementError
        For an element that the model does not cover.
    InvalidStructureError
        For overlapping atoms.
    SimulationError
        If the model gives an energy or force that is not a finite number.
    """
    require_elements(system, model.atomic_numbers)
    require_separation(system, edges)
    results = evaluation(model, system, edges)
    require_finite(results)
    return results


def require_elements(system: System, covered: Sequence[int], name: str = "the model") -> None:
    """Raise `UnsupportedElementError` if an atom is of an element outside of `covered`."""
    present = torch.unique(system.numbers).tolist()
    unknown = [symbol(z) for z in present if z not in covered]
    if unknown:
        raise UnsupportedElementError(
            f"{name} covers {', '.join(symbol(z) for z in covered)}, but the structure contains "
            f"{', '.join(unknown)}; choose a potential that covers them (`pet-calc models list`)"
        )


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number; numbers that no element has stay numbers."""
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"


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


def require_finite(results: Results) -> None:
    """Raise `SimulationError` if an energy or a force is not a finite number."""
    for name, unit, values in (
        ("energy", "eV", results.energies),
        ("force", "eV/Å", results.forces),
    ):
        if values is None or bool(torch.isfinite(values).all()):
            continue
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        atom = int((~finite).nonzero()[0])
        raise SimulationError(
            f"the potential must give finite numbers, but the {name} of atom {atom} is "
            f"{values[atom].tolist()} {unit} ({int((~finite).sum())} such atom(s)); the structure "
            f"lies far outside of what it was trained on"
        )
