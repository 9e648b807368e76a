"""PET as an ASE calculator.

>>> from ase.build import molecule
>>> from pet_calc import PETCalculator
>>> water = molecule("H2O")
>>> water.calc = PETCalculator()
>>> forces = water.get_forces()
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from ase.data import chemical_symbols

from pet_calc import pretrained
from pet_calc.calculators.base import ModelCalculator, require_elements, symbol
from pet_calc.calculators.symmetry import Symmetry, check_symmetry, symmetrised
from pet_calc.geometry import System
from pet_calc.io.domain import TrainingDomain
from pet_calc.io.weights import DTYPES, copy_model
from pet_calc.models import EnergyModel
from pet_calc.models.pet import PET
from pet_calc.pretrained import LoadedPotential

_log = logging.getLogger("pet_calc")


class PETCalculator(ModelCalculator):
    """ASE calculator of a PET potential; without arguments it works offline.

    Energies are smooth in all positions: an atom enters and leaves the cutoff without a jump. A
    plain PET learns rotational symmetry from data and has it approximately; `ecse` makes it exact.

    Parameters
    ----------
    model : str, Path or PET
        Name of a shipped potential ("pet-water-v1", or "pet-water" for its newest version) or of
        a published one ("pet-mad-s", downloaded once), path of a folder that ``pet-calc train``
        wrote or of a model in another package's form, or a model. With "auto" the first calculation
        picks the shipped potential that covers the elements present and logs which one (logger
        ``pet_calc``, level INFO); later structures that it does not cover make it pick again.
    device : str or torch.device, optional
        "cpu", "cuda" or "cuda:1". By default a GPU if there is one that works.
    dtype : {"float32", "float64"}, optional
        Precision of the network. "float32", the default of potentials, suits molecular dynamics;
        "float64" suits relaxation, phonons and elasticity. A model object keeps its own by
        default. Geometry and the sum over atoms are in float64 always.
    ecse : {None, False, "auto", "local", "layerwise", "structure", "quadrature"}
        Symmetry under rotations and inversion. By default (None) the potential is evaluated as it
        was trained: exactly symmetric if that was layerwise, else plain. "auto" is the cheapest way
        to make any potential exact: "layerwise" where it was trained so; "local", a few evaluations
        per atom, where one message-passing layer sees neighbours alone; else "structure", as many
        evaluations of the whole structure as it has frames, which suits small cells. "quadrature"
        averages over a fixed grid of rotations and is not exact. False insists on the plain model.
    quadrature_order : int
        Degree of that grid, odd; 3 takes 84 evaluations.
    skin : float
        Reach of the neighbour list beyond the cutoff in Å; a matter of speed only.

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
        For an option outside of those above.
    """

    def __init__(
        self,
        model: str | Path | PET = "auto",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        ecse: Symmetry | Literal[False] | None = None,
        quadrature_order: int = 3,
        skin: float = 1.0,
    ) -> None:
        super().__init__(skin=skin)
        if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
            raise ValueError(f"`dtype` must be 'float32' or 'float64', got {dtype!r}")
        check_symmetry(ecse)
        if not isinstance(model, str | Path | PET):
            raise TypeError(
                f"`model` must be a name, a path or a PET model, got {type(model).__name__}"
            )
        self._device = choose_device(device)
        self.ecse = ecse
        self.quadrature_order = quadrature_order
        self.auto = isinstance(model, str) and model == "auto"
        self.potential: LoadedPotential | None = None
        if isinstance(model, PET):
            found = str(model.dtype).removeprefix("torch.")
            if dtype is None and found not in DTYPES:
                raise ValueError(f"`model` must be in float32 or float64, got {found}")
            self.dtype = dtype or found
            elements = tuple(chemical_symbols[z] for z in model.atomic_numbers)
            # a copy: freezing the caller's own model would stop its training
            frozen = copy_model(model, DTYPES[self.dtype]).to(self._device)
            self.potential = LoadedPotential("pet", frozen, elements)
        else:
            self.dtype = dtype or "float32"
            if not self.auto:
                self.potential = self._load(model)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device

    @property
    def training_domain(self) -> TrainingDomain | None:
        """What the potential was trained on; None where that was not recorded."""
        return None if self.potential is None else self.potential.domain

    def model_for(self, system: System) -> EnergyModel:
        """The model that computes `system`: the potential in use, made symmetric as asked for.

        Raises
        ------
        UnsupportedElementError
            See `potential_for`.
        ValueError
            If the potential does not allow the symmetry that is asked for.
        """
        return symmetrised(
            self.potential_for(system).model, system, self.ecse, self.quadrature_order
        )

    def potential_for(self, system: System) -> LoadedPotential:
        """The potential in use; with "auto" one that covers the elements of `system`.

        Raises
        ------
        UnsupportedElementError
            If the potential, or with "auto" every shipped one, lacks an element.
        """
        numbers = torch.unique(system.numbers).tolist()
        covered = self.potential is not None and set(numbers) <= set(
            self.potential.model.atomic_numbers
        )
        if self.auto and not covered:
            symbols = [symbol(z) for z in numbers]
            self.potential = self._load(pretrained.choose_for(symbols))
            _log.info(
                "using the potential %s for %s (%s)",
                self.potential.name,
                ", ".join(symbols),
                self.dtype,
            )
        assert self.potential is not None
        require_elements(
            system, self.potential.model.atomic_numbers, f"the potential {self.potential.name}"
        )
        return self.potential

    def _load(self, source: str | Path | pretrained.PotentialEntry) -> LoadedPotential:
        potential = pretrained.load(source, self.dtype)
        potential.model.to(self._device)
        return potential

    def _get_name(self) -> str:
        """Name under which ASE's files record the calculator: that of the potential."""
        return "pet" if self.potential is None else self.potential.name

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What ASE's files record: the potential with its SHA-256, and the options."""
        return {
            "model": "auto" if self.potential is None else self.potential.name,
            "sha256": None if self.potential is None else self.potential.digest,
            "dtype": self.dtype,
            "device": str(self.device),
            "ecse": self.ecse,
            "quadrature_order": self.quadrature_order,
            "skin": self.skin,
        }

    def __repr__(self) -> str:
        name = "auto" if self.potential is None else self.potential.name
        return (
            f"PETCalculator({name!r}, device={str(self.device)!r}, dtype={self.dtype!r}, "
            f"ecse={self.ecse!r}, skin={self.skin:g})"
        )


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None is a GPU that works, else the CPU.

    Raises
    ------
    ValueError
        For a device that is not there, or is neither a CPU nor a CUDA device.
    """
    if device is None:
        return torch.device("cuda" if cuda_problem("cuda") is None else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"`device` must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if chosen.type == "cuda":
        problem = cuda_problem(chosen)
        if problem is not None:
            raise ValueError(f"`device` {str(chosen)!r} does not work: {problem}; use 'cpu'")
    return chosen


def cuda_problem(device: str | torch.device) -> str | None:
    """Why a CUDA device cannot be used; None if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    try:
        # a device can be listed and yet be of a kind that this torch has no kernels for
        torch.zeros(1, device=device).add_(1.0)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None
