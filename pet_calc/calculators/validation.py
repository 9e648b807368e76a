"""What a structure must fulfil to be computed, and its results to be believed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pet_calc.errors import SimulationError, UnsupportedElementError
from pet_calc.geometry import Edges, System
from pet_calc.io.structures.separation import require_separation, symbol
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.committee import Evaluation


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
