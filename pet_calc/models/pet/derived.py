"""What a model that is made from a PET, with other energies, shares with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pet_calc.models.pet.model import PET


class DerivedPET:
    """Cutoff, elements and dtype of the PET in ``model``.

    Parameters
    ----------
    model : PET
    """

    def __init__(self, model: PET) -> None:
        self.model = model

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        return self.model.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.model.atomic_numbers

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.model.dtype
