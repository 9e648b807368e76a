"""Elements as indices into the tables of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pet_calc.errors import UnsupportedElementError


def species_table(elements: Sequence[int]) -> Tensor:
    """Index of each atomic number (119,) among `elements`, -1 for the others."""
    table = torch.full((119,), -1, dtype=torch.int64)
    table[list(elements)] = torch.arange(len(elements))
    return table


def species_of(table: Tensor, numbers: Tensor, elements: Sequence[int], name: str) -> Tensor:
    """Index of each atom's element (n_atoms,).

    Parameters
    ----------
    table : Tensor, shape (119,)
        From `species_table`.
    numbers : Tensor, shape (n_atoms,)
        Atomic numbers.
    elements : sequence of int
        Those of the table.
    name : str
        Of the model, for the message.

    Raises
    ------
    UnsupportedElementError
        If an element is not in the table. On a GPU, where the check would wait for the device,
        it is left to the caller, as `pet_calc.calculators` does it for structures on the host.
    """
    species = table[numbers.clamp(0, 118)]
    if numbers.device.type == "cpu" and bool((species < 0).any()):
        unknown = sorted(set(numbers[species < 0].tolist()))
        raise UnsupportedElementError(
            f"this {name} covers the atomic numbers {list(elements)}, but the structure contains "
            f"{unknown}"
        )
    return species
