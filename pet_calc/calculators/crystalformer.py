"""Crystalformer as an ASE calculator.

>>> from ase.build import bulk
>>> from pet_calc import CrystalformerCalculator
>>> tungsten = bulk("W")
>>> tungsten.calc = CrystalformerCalculator("runs/alloy/model")
>>> stress = tungsten.get_stress()
"""

from __future__ import annotations

from pet_calc.calculators.potential import PotentialCalculator, Source
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.pretrained import LoadedPotential, PotentialEntry


class CrystalformerCalculator(PotentialCalculator):
    """ASE calculator of a Crystalformer potential; see `PotentialCalculator` for its options.

    Energies are smooth in all positions, the same for every choice of the cell, and exactly
    invariant under rotations and reflections.
    """

    architecture = "crystalformer"
    model_types = (Crystalformer,)

    def _load(self, source: Source | PotentialEntry) -> LoadedPotential:
        potential = super()._load(source)
        assert isinstance(potential.model, Crystalformer)
        config = potential.model.config
        if config.readout != "atoms":
            raise ValueError(
                f"a calculator needs a potential, but {potential.name} predicts "
                f"{', '.join(config.targets)} of whole crystals; use its "
                f"`Crystalformer.properties`"
            )
        return potential
