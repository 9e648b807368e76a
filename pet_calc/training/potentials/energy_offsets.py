"""Energies that count from another zero than those of the model.

Data sets of one level of theory may differ in what their energies count from: total energies of
pseudo-atoms, or formation energies. Such a difference is a constant for each element. Materials
Project settings add another: oxides and fluorides of some transition metals are computed with PBE+U
and all else with PBE, which shifts the energy by a constant for each such atom [Jain et al., Phys.
Rev. B 84, 045115 (2011)]. Both are fitted, and energies relative to them are what is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from pet_calc.models import EnergyModel
from pet_calc.training.core.parallel import ALONE, Team
from pet_calc.training.potentials.data import Batch, ZeroOfEnergy, energy_errors

#: Metals that Materials Project settings treat with +U, beside one of `ANIONS`.
METALS: Final = (23, 24, 25, 26, 27, 28, 42, 74)
ANIONS: Final = (8, 9)


def columns(
    numbers: NDArray[np.int64], elements: Sequence[int], *, hubbard: bool
) -> NDArray[np.float64]:
    """Counts (n_elements + n_metals,) that an offset of the energy is linear in.

    Parameters
    ----------
    numbers : array
        Atomic numbers of a structure.
    elements : sequence of int
    hubbard : bool
        Count the `METALS` treated with +U, if the structure holds one of `ANIONS`.
    """
    counts = np.bincount(numbers, minlength=119).astype(float)
    plus_u = hubbard and counts[list(ANIONS)].any()
    return np.concatenate([counts[list(elements)], counts[list(METALS)] * plus_u])


def fit_zeros(model: EnergyModel, frames: Sequence[Batch], team: Team = ALONE) -> dict[str, Tensor]:
    """Zeros of energy by name, each as eV per count of `columns`.

    By least squares of what the labels have beyond the model, of least norm.

    Parameters
    ----------
    model : EnergyModel
    frames : sequence of Batch
        Of one system each; those on the zero of the model do not matter.
    team : Team
        Processes that share the work.
    """
    names = sorted({f.zero.name for f in frames if f.zero is not None})
    found = {}
    for name in names:
        part = [f for f in frames if f.zero is not None and f.zero.name == name]
        part = [f for f in part if bool(torch.isfinite(f.energy).all())]
        if not part:
            continue
        counts = np.array([counts_of(f, model.atomic_numbers) for f in part])
        errors = energy_errors(model, part, team).numpy()
        found[name] = torch.from_numpy(np.linalg.lstsq(counts, errors, rcond=1e-8)[0])
    return found


def on_zero_of_model(
    frames: Sequence[Batch], zeros: Mapping[str, Tensor], elements: Sequence[int]
) -> list[Batch]:
    """Frames with energies that count from the zero of the model.

    An energy whose zero was not fitted, as no training frame has it, is left out.
    """
    moved = []
    for f in frames:
        if f.zero is None:
            moved.append(f)
            continue
        offset = float("nan")
        if f.zero.name in zeros:
            offset = float(counts_of(f, elements) @ zeros[f.zero.name].numpy())
        moved.append(replace(f, energy=f.energy - offset, zero=None))
    return moved


def counts_of(frame: Batch, elements: Sequence[int]) -> NDArray[np.float64]:
    """`columns` of a frame with a zero of its own."""
    assert isinstance(frame.zero, ZeroOfEnergy)
    return columns(frame.system.numbers.numpy(), elements, hubbard=frame.zero.hubbard)


def described(
    zeros: Mapping[str, Tensor], elements: Sequence[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Zeros as plain values: name to eV per atom of each element, and per atom under +U."""
    found = {}
    for name, values in zeros.items():
        parts = {"elements": (elements, values), "hubbard": (METALS, values[len(elements) :])}
        found[name] = {
            kind: {chemical_symbols[z]: float(x) for z, x in zip(who, given, strict=False)}
            for kind, (who, given) in parts.items()
        }
    return found
