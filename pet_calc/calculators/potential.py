"""An ASE calculator of a stored potential of one family of architectures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from ase import Atoms
from ase.data import chemical_symbols

from pet_calc import pretrained
from pet_calc.calculators.auto_selection import other_choice
from pet_calc.calculators.base import ModelCalculator, Modeler
from pet_calc.calculators.conditions import known_conditions, warn_of_spin
from pet_calc.calculators.pet import choose_device
from pet_calc.calculators.validation import require_elements
from pet_calc.geometry import System
from pet_calc.io.conditions import charge_and_spin
from pet_calc.io.models.weights import DTYPES, copy_model
from pet_calc.models.architectures import Model
from pet_calc.pretrained import LoadedPotential

_log = logging.getLogger("pet_calc")


class PotentialCalculator(ModelCalculator):
    """Calculator of a potential by name, path or as a model.

    A subclass says of which architecture (`architecture`, `model_type`).

    Parameters
    ----------
    model : str, Path or model
        Name of a shipped potential, path of a folder that ``pet-calc train`` wrote or of a public
        checkpoint, or a model. With "auto" the first calculation picks the shipped potential of
        this architecture that covers the elements present and logs which one (logger
        ``pet_calc``, level INFO); later structures that it does not cover make it pick again.
    device : str or torch.device, optional
        "cpu", "cuda" or "cuda:1". By default a GPU if there is one that works.
    dtype : {"float32", "float64"}, optional
        Precision of the network. "float32", the default of potentials, suits molecular dynamics;
        "float64" suits relaxation, phonons and elasticity. A model object keeps its own by
        default. Geometry and the sum over atoms are in float64 always.
    skin : float
        Reach of the neighbor list beyond the cutoff in Å; a matter of speed only.

    Attributes
    ----------
    potential : LoadedPotential or None
        Name, elements, SHA-256 and card of the potential in use; None before "auto" has chosen.

    Raises
    ------
    PotentialNotFoundError
        If there is no such potential.
    IntegrityError
        If its files do not have their recorded SHA-256.
    ValueError
        For an option outside of those above, and for a potential of another architecture.
    """

    architecture: ClassVar[str]
    model_type: ClassVar[type]

    def __init__(
        self,
        model: str | Path | Model = "auto",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        skin: float = 1.0,
    ) -> None:
        super().__init__(skin=skin)
        if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
            raise ValueError(f"`dtype` must be 'float32' or 'float64', got {dtype!r}")
        if not isinstance(model, str | Path | self.model_type):
            raise TypeError(
                f"`model` must be a name, a path or a {self.model_type.__name__} model, got "
                f"{type(model).__name__}"
            )
        self._device = choose_device(device)
        self.auto = isinstance(model, str) and model == "auto"
        self.potential: LoadedPotential | None = None
        self._told = False
        if isinstance(model, str | Path):
            self.dtype = dtype or "float32"
            if not self.auto:
                self.potential = self._load(model)
            return
        found = str(model.dtype).removeprefix("torch.")
        if dtype is None and found not in DTYPES:
            raise ValueError(f"`model` must be in float32 or float64, got {found}")
        self.dtype = dtype or found
        elements = tuple(chemical_symbols[z] for z in model.atomic_numbers)
        # a copy: freezing the caller's own model would stop its training
        frozen = copy_model(model, DTYPES[self.dtype]).to(self._device)
        self.potential = self._accept(LoadedPotential(self.architecture, frozen, elements))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device

    def modeler(self, *structures: Atoms) -> Modeler:
        """As `model_for`; a charge is refused, and a spin warned of once: no model knows either."""
        states = [charge_and_spin(atoms) for atoms in structures]

        def model(system: System) -> Model:
            found = self.model_for(system)
            for atoms, (charge, spin) in zip(structures, states, strict=True):
                known_conditions(found, charge, spin, len(atoms), self.name)
                if spin != 1 and not self._told:
                    self._told = True
                    warn_of_spin(self.name, spin)
            return found

        return model

    def model_for(self, system: System) -> Model:
        """The model in use; with "auto" one that covers the elements of `system`.

        Raises
        ------
        UnsupportedElementError
            If the potential, or with "auto" every shipped one, lacks an element.
        """
        if self.auto:
            entry = other_choice(self.potential, system, self.architecture, self.dtype)
            if entry is not None:
                self.potential = self._load(entry)
        assert self.potential is not None
        require_elements(
            system, self.potential.model.atomic_numbers, f"the potential {self.potential.name}"
        )
        return self.potential.model

    def selection(self, system: System) -> LoadedPotential | None:
        """The potential that computes `system`."""
        self.model_for(system)
        return self.potential

    def select(self, selection: Any) -> None:
        """Compute with this potential from now on."""
        self.potential = selection

    def _load(self, source: str | Path | pretrained.PotentialEntry) -> LoadedPotential:
        potential = self._accept(pretrained.load(source, self.dtype))
        potential.model.to(self._device)
        return potential

    def _accept(self, potential: LoadedPotential) -> LoadedPotential:
        if not isinstance(potential.model, self.model_type):
            raise ValueError(
                f"{type(self).__name__} runs {self.model_type.__name__} models, but "
                f"{potential.name} is a {type(potential.model).__name__}; "
                f"`pet_calc.calculators.calculator_for` finds the calculator of any potential"
            )
        return potential

    def _get_name(self) -> str:
        """Name under which ASE's files record the calculator: that of the potential."""
        return self.architecture if self.potential is None else self.potential.name

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What ASE's files record: the potential with its SHA-256, and the options."""
        return {
            "model": "auto" if self.potential is None else self.potential.name,
            "sha256": None if self.potential is None else self.potential.digest,
            "dtype": self.dtype,
            "device": str(self.device),
            "skin": self.skin,
        }

    def __repr__(self) -> str:
        name = "auto" if self.potential is None else self.potential.name
        return (
            f"{type(self).__name__}({name!r}, device={str(self.device)!r}, dtype={self.dtype!r}, "
            f"skin={self.skin:g})"
        )
