"""Results as ASE names and shapes them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from torch import Tensor

from pet_calc.models import Results
from pet_calc.models.interface import Uncertainties

#: What every calculator gives.
PROPERTIES: Final = ("energy", "free_energy", "energies", "forces", "stress")
#: Spread over orientations of the structure (`pet_calc.models.ecse.spread`).
ROTATION_PROPERTIES: Final = ("energy_rotation_std", "forces_rotation_std")
#: Further results of models with uncertainties.
ENERGY_UNCERTAINTIES: Final = ("energy_uncertainty", "energies_uncertainty", "energy_ensemble")
DERIVATIVE_UNCERTAINTIES: Final = ("forces_uncertainty", "stress_uncertainty")
#: Results that are defined with three periodic directions only.
PERIODIC: Final = frozenset({"stress", "stress_uncertainty"})


def ase_results(results: Results, *, stress: bool) -> dict[str, Any]:
    """Results of one structure as ASE names and shapes them; float64 arrays of their own memory."""
    assert results.forces is not None
    assert results.stress is not None
    energy = float(results.energy[0])
    # there are no electrons whose entropy could tell the two apart
    values: dict[str, Any] = {"energy": energy, "free_energy": energy}
    values["energies"] = array(results.energies)
    values["forces"] = array(results.forces)
    if stress:
        values["stress"] = array(results.stress[0])
    if results.uncertainties is not None:
        values |= ase_uncertainties(results.uncertainties, stress=stress)
    return values


def ase_uncertainties(found: Uncertainties, *, stress: bool) -> dict[str, Any]:
    """Uncertainties of one structure, likewise; those that there are."""
    values: dict[str, Any] = {
        "energy_uncertainty": float(found.energy_uncertainty[0]),
        "energies_uncertainty": array(found.energies_uncertainty),
    }
    if found.energy_ensemble.shape[1]:
        values["energy_ensemble"] = array(found.energy_ensemble[0])
    if found.forces_uncertainty is not None:
        values["forces_uncertainty"] = array(found.forces_uncertainty)
    if stress and found.stress_uncertainty is not None:
        values["stress_uncertainty"] = array(found.stress_uncertainty[0])
    return values


def array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A float64 array of its own memory."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)
