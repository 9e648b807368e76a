"""PET with one drawn frame for each atom: what layerwise ECSE is trained on."""

from __future__ import annotations

from torch import Tensor

from pet_calc.geometry import Edges
from pet_calc.models.pet.derived import DerivedPET
from pet_calc.models.pet.model import PET


class SampledPET(DerivedPET):
    """A PET with layerwise ECSE whose atoms are seen in one frame each, as an `EnergyModel`.

    It costs what a plain PET costs. Each frame is drawn with the probability of its weight.

    Parameters
    ----------
    model : PET
        With ``config.ecse == "layerwise"``.
    draw : Tensor, shape (n_atoms,)
        Uniform numbers in [0, 1), one for each atom of the batch that will be evaluated.
    """

    def __init__(self, model: PET, draw: Tensor) -> None:
        if model.config.ecse != "layerwise":
            raise ValueError("`model` must have layerwise ECSE; a plain PET has no frames to draw")
        super().__init__(model)
        self.draw = draw

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        return self.model.energies_under(None, numbers, edges, vectors, self.draw)
