"""Crystalformer as an ASE calculator.

>>> from ase.build import bulk
>>> from pet_calc import CrystalformerCalculator
>>> tungsten = bulk("W")
>>> tungsten.calc = CrystalformerCalculator("runs/alloy/model")
>>> stress = tungsten.get_stress()
"""

from __future__ import annotations

from pet_calc.calculators.potential import PotentialCalculator
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.pretrained import LoadedPotential


class CrystalformerCalculator(PotentialCalculator):
    """ASE calculator of a Crystalformer potential; see `PotentialCalculator` for its options.

    Energies are smooth in all positions, the same for every choice of the cell, and exactly
    invariant under rotations and reflections.
    """

    architecture = "crystalformer"
    model_type = Crystalformer

    def _accept(self, potential: LoadedPotential) -> LoadedPotential:
        accepted = super()._accept(potential)
        model = accepted.model
        if isinstance(model, Crystalformer) and model.config.readout != "atoms":
            raise ValueError(
                f"a calculator needs a potential, but {potential.name} predicts "
                f"{', '.join(model.config.targets)} of whole crystals; use its "
                f"`Crystalformer.properties`"
            )
        return accepted
