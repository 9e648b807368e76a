"""Stored potentials as an ASE calculator: one of them, or the mean of several."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from ase import Atoms
from ase.data import chemical_symbols

from pet_calc import pretrained
from pet_calc.calculators.auto_selection import other_choice
from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.device import choose_device
from pet_calc.calculators.results import (
    DERIVATIVE_UNCERTAINTIES,
    ENERGY_UNCERTAINTIES,
    PROPERTIES,
    ROTATION_PROPERTIES,
)
from pet_calc.calculators.validation import has_conditioning, require_elements, require_state
from pet_calc.geometry import Edges, System
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.io.models.uncertainty import find_uncertainty
from pet_calc.io.models.weights import DTYPES, copy_model
from pet_calc.io.structures.charge_and_spin import charge_and_spin
from pet_calc.kernels.operation import Kernels, require_kernels
from pet_calc.kernels.precision import Precision, matmul_precision, require_precision
from pet_calc.models import EnergyModel, Results
from pet_calc.models.architectures import Model
from pet_calc.models.committee import Committee
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR, LastLayerEnsemble
from pet_calc.pretrained import LoadedPotential, PotentialEntry

_log = logging.getLogger("pet_calc")

Source = str | Path | Model


class PotentialCalculator(ModelCalculator):
    """ASE calculator of a potential by name, path or as a model.

    Energies are smooth in all positions: an atom enters and leaves the cutoff without a jump.

    A potential made with `system_conditioning` reads the total charge and the spin multiplicity
    2S + 1 from ``atoms.info["charge"]`` and ``atoms.info["spin_multiplicity"]`` (or ``"spin"``),
    by default a neutral singlet. Any other potential refuses a charge, and logs a warning once that
    a spin has no effect; initial charges and magnetic moments of single atoms have none either.

    Potentials with an uncertainty model, and lists of models, have more results, which
    ``calc.get_property(name, atoms)`` gives: ``energy_uncertainty`` (eV), ``energies_uncertainty``
    (n_atoms,), ``energy_ensemble`` (n_members,), ``forces_uncertainty`` (n_atoms, 3) in eV/Å and
    ``stress_uncertainty`` (6,) in eV/Å³, all of them standard deviations but the ensemble. They
    are listed in ``implemented_properties`` where they exist, and computed when asked for.

    Parameters
    ----------
    model : str, Path, model, or a sequence of these
        Name of a shipped potential ("pet-water-v1", or "pet-water" for its newest version) or of
        a published one ("pet-mad-s", downloaded once), path of a folder that ``pet-calc train``
        wrote or of a model in another package's form, or a model. With "auto" the first calculation
        picks the shipped potential that was made for structures of the elements present and logs
        which one (logger ``pet_calc``, level INFO); a later structure that it was not made for
        makes it pick again, and warn: energies of different potentials do not compare.
        Of several models the results are the mean, and the uncertainties their spread.
    device : str or torch.device, optional
        "cpu", "cuda" or "cuda:1". By default a GPU if there is one that works.
    dtype : {"float32", "float64"}, optional
        Precision of the network. "float32", the default of potentials, suits molecular dynamics;
        "float64" suits relaxation, phonons and elasticity. A model object keeps its own by
        default. Geometry and the sum over atoms are in float64 always.
    skin : float
        Reach of the neighbor list beyond the cutoff in Å; a matter of speed only.
    precision : {"highest", "high", "fast"}
        Of matrix products in float32 on a GPU: float32; TensorFloat-32, whose forces deviate by
        some 1e-3 of the largest; or bfloat16, by some 1e-2, which the Triton kernels alone compute,
        all others in TensorFloat-32. On a CPU only the first.
    kernels : {"auto", "reference", "triton"}
        "reference" computes with torch alone; "triton" also with Triton kernels on a GPU, which
        are compared with the reference at their first use and left out, with a warning, where they
        disagree. No Triton kernel has run on a GPU yet, so that "auto" is "reference" unless
        ``PET_CALC_TRITON=1`` is set in the environment.

    Attributes
    ----------
    potentials : tuple of LoadedPotential
        Name, elements, SHA-256 and card of each potential in use; empty before "auto" has chosen.
    dtype : str
    precision, kernels : str

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
    model_types: ClassVar[tuple[type, ...]]

    def __init__(
        self,
        model: Source | Sequence[Source] = "auto",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        skin: float = 1.0,
        precision: Precision = "highest",
        kernels: Kernels = "auto",
    ) -> None:
        if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
            raise ValueError(f"`dtype` must be 'float32' or 'float64', got {dtype!r}")
        sources = self._sources(model)
        super().__init__(device=choose_device(device), skin=skin, kernels=kernels)
        require_precision(precision, self.device, require_kernels(kernels, self.device))
        self.precision: Precision = precision
        self.auto = len(sources) == 1 and isinstance(sources[0], str) and sources[0] == "auto"
        self.dtype = dtype or common_dtype(sources)
        self.potentials: tuple[LoadedPotential, ...] = ()
        self._llpr: LLPR | None = None
        self._warned_of_spin = False
        self._warned_of_open: set[str] = set()  # names of potentials
        if not self.auto:
            self._select(tuple(self._load(source) for source in sources))

    @property
    def potential(self) -> LoadedPotential | None:
        """The potential in use, the first of several; None before "auto" has chosen."""
        return self.potentials[0] if self.potentials else None

    @property
    def training_domain(self) -> TrainingDomain | None:
        """What the potential was trained on; None where that was not recorded, or for several."""
        return self.potentials[0].domain if len(self.potentials) == 1 else None

    def model_for(self, *structures: Atoms) -> EnergyModel:
        """The model that computes structures; with "auto" a potential that was made for such.

        Raises
        ------
        UnsupportedElementError
            If the potential, or with "auto" every shipped one, lacks an element.
        InvalidStructureError
            For a charge or spin that the potential does not support.
        """
        if self.auto:
            entry = other_choice(self.potential, structures, self.architecture, self.dtype)
            if entry is not None:
                self._select((self._load(entry),))
        for potential in self.potentials:
            name = f"the potential {potential.name}"
            for atoms in structures:
                require_elements(atoms, potential.model.atomic_numbers, name)
                require_state(atoms, potential.model, potential.name)
        self._warn(structures)
        assert self.model is not None
        return self.model

    def _warn(self, structures: Sequence[Atoms]) -> None:
        """Log, once each, what a potential was not made for."""
        if not self._warned_of_spin and not all(has_conditioning(p.model) for p in self.potentials):
            odd = next((s for s in (charge_and_spin(a)[1] for a in structures) if s != 1), 1)
            if odd != 1:
                self._warned_of_spin = True
                _log.warning(
                    "%s does not depend on the spin: results are those of the states in its "
                    "training data, whatever atoms.info has (2S + 1 = %d)",
                    self.name,
                    odd,
                )
        if all(atoms.pbc.all() for atoms in structures):
            return
        crystals_only = {p.name for p in self.potentials if p.crystals_only}
        for name in sorted(crystals_only - self._warned_of_open):
            _log.warning(
                "%s was trained on structures that are periodic in three dimensions; of "
                "molecules, clusters and surfaces it may be wrong by any amount",
                name,
            )
        self._warned_of_open |= crystals_only

    def _unverified(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """As of the base class, in the precision that was asked for."""
        with matmul_precision(self.precision):
            return super()._unverified(model, system, edges)

    def _uncertainty_model(self, names: Sequence[str]) -> LastLayerEnsemble | None:
        wanted = set(names) & {*ENERGY_UNCERTAINTIES, *DERIVATIVE_UNCERTAINTIES}
        if self._llpr is None or not wanted & set(self.implemented_properties):
            return None
        model = self.potentials[0].model
        assert isinstance(model, PET)
        derivatives = bool(wanted & set(DERIVATIVE_UNCERTAINTIES))
        return LastLayerEnsemble(model, self._llpr, derivatives=derivatives)

    @property
    def _selection(self) -> tuple[LoadedPotential, ...]:
        return self.potentials

    def _select(self, selection: tuple[LoadedPotential, ...]) -> None:
        """Compute with these potentials from now on, and declare the results that they have."""
        if self.potentials is selection:
            return
        models = [self._assembled(potential.model) for potential in selection]
        self.model = models[0] if len(models) == 1 else Committee(models)
        self.potentials = selection
        self._llpr = None
        names = [*PROPERTIES, *ROTATION_PROPERTIES]
        if len(selection) > 1:
            names += [*ENERGY_UNCERTAINTIES, *DERIVATIVE_UNCERTAINTIES]
        else:
            self._llpr = self._find_llpr(selection[0])
            if self._llpr is not None:
                names += ENERGY_UNCERTAINTIES[:2]
                if self._llpr.n_members > 1:
                    names += [ENERGY_UNCERTAINTIES[2], *self._uncertain_derivatives()]
        self.implemented_properties = names

    def _assembled(self, model: Model) -> EnergyModel:
        """The model that is evaluated, made of a stored one by the calculator's options."""
        return model

    def _find_llpr(self, potential: LoadedPotential) -> LLPR | None:
        """The uncertainty model beside a potential's weights, on the device."""
        if potential.folder is None or not isinstance(potential.model, PET):
            return None
        found = find_uncertainty(potential.folder, potential.model.energy_head)
        return None if found is None else found.to(self.device)

    def _uncertain_derivatives(self) -> Sequence[str]:
        """Which derivatives have uncertainties from an ensemble of energies."""
        return DERIVATIVE_UNCERTAINTIES

    def _load(self, source: Source | PotentialEntry) -> LoadedPotential:
        """A potential on the device."""
        if isinstance(source, str | Path | PotentialEntry):
            loaded = pretrained.load(source, self.dtype)
        else:
            elements = tuple(chemical_symbols[z] for z in source.atomic_numbers)
            # a copy: freezing the caller's own model would stop its training
            loaded = LoadedPotential(
                self.architecture, copy_model(source, DTYPES[self.dtype]), elements
            )
        if not isinstance(loaded.model, self.model_types):
            raise ValueError(
                f"{type(self).__name__} runs {self.model_types[0].__name__} models, but "
                f"{loaded.name} is a {type(loaded.model).__name__}; `pet_calc.load_calculator` "
                f"finds the calculator of any potential"
            )
        return replace(loaded, model=loaded.model.to(self.device))

    def _sources(self, model: Any) -> list[Source]:
        """The models of a calculator, one or more."""
        kinds = (str, Path, *self.model_types)
        if isinstance(model, kinds):
            source: Any = model
            return [source]
        if not isinstance(model, list | tuple) or not all(isinstance(m, kinds) for m in model):
            raise TypeError(
                f"`model` must be a name, a path or a {self.model_types[0].__name__} model, or a "
                f"list of these, got {type(model).__name__}"
            )
        if len(model) < 2 or "auto" in [m for m in model if isinstance(m, str)]:
            raise ValueError(
                f"a list of models needs at least two of them, each named, got "
                f"{[m if isinstance(m, str) else type(m).__name__ for m in model]}"
            )
        return list(model)

    def _get_name(self) -> str:
        """Name under which ASE's files record the calculator: that of the potential."""
        return " + ".join(p.name for p in self.potentials) or self.architecture

    def _options(self) -> dict[str, Any]:
        """Options beside model, device and dtype; rare ones only where they are given."""
        options = {"precision": (self.precision, "highest"), "kernels": (self.kernels, "auto")}
        return {"skin": self.skin, **given(options)}

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What ASE's files record: the potential with its SHA-256, and the options."""
        names = [p.name for p in self.potentials] or ["auto"]
        digests = [p.digest for p in self.potentials] or [None]
        return {
            "model": names[0] if len(names) == 1 else names,
            "sha256": digests[0] if len(digests) == 1 else digests,
            "dtype": self.dtype,
            "device": str(self.device),
            **self._options(),
        }

    def __repr__(self) -> str:
        names = [p.name for p in self.potentials] or ["auto"]
        options = {"device": str(self.device), "dtype": self.dtype, **self._options()}
        text = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({names[0] if len(names) == 1 else names!r}, {text})"


def given(options: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Options whose value differs from the default, of name to value and default."""
    return {name: value for name, (value, default) in options.items() if value != default}


def common_dtype(sources: Sequence[Source]) -> str:
    """Precision for models if none is asked for: their own, and float32 for those on disk."""
    found = {
        "float32" if isinstance(m, str | Path) else str(m.dtype).removeprefix("torch.")
        for m in sources
    }
    if len(found) > 1:
        raise ValueError(f"`dtype` must be named for models of several, got {sorted(found)}")
    (dtype,) = found
    if dtype not in DTYPES:
        raise ValueError(f"`model` must be in float32 or float64, got {dtype}")
    return dtype
