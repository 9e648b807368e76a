"""PET as an ASE calculator.

>>> from ase.build import molecule
>>> from pet_calc import PETCalculator
>>> water = molecule("H2O")
>>> water.calc = PETCalculator()
>>> forces = water.get_forces()
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from pet_calc import pretrained
from pet_calc.calculators.auto_selection import other_choice
from pet_calc.calculators.base import ModelCalculator, Modeler
from pet_calc.calculators.conditions import (
    joint_conditions,
    known_conditions,
    knows_conditions,
    warn_of_spin,
)
from pet_calc.calculators.fixed_step import FixedStep
from pet_calc.calculators.results import (
    DERIVATIVE_UNCERTAINTIES,
    ENERGY_UNCERTAINTIES,
    PROPERTIES,
    ROTATION_PROPERTIES,
    array,
    ase_uncertainties,
)
from pet_calc.calculators.symmetry import Symmetry, check_symmetry, is_ensemble, symmetrized
from pet_calc.calculators.validation import require_elements
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.io.conditions import charge_and_spin
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.io.models.uncertainty import find_uncertainty
from pet_calc.io.models.weights import DTYPES, copy_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.kernels.operation import require_kernels
from pet_calc.kernels.precision import Precision, matmul_precision, require_precision
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.committee import Committee, evaluate_committee
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.models.pet import PET
from pet_calc.models.pet.compiled import compile_regions
from pet_calc.models.pet.conditioning import ConditionedPET, Conditions
from pet_calc.models.pet.direct import evaluate_direct, require_head
from pet_calc.models.pet.uncertainty import LLPR, evaluate_uncertainty
from pet_calc.neighbors import neighbor_list
from pet_calc.pretrained import LoadedPotential

_log = logging.getLogger("pet_calc")

NonConservative = bool | Literal["forces", "stress"]
_DIRECT: Final[dict[NonConservative, tuple[bool, bool]]] = {
    False: (False, False),
    True: (True, True),
    "forces": (True, False),
    "stress": (False, True),
}


def warn_of_open_directions(name: str) -> None:
    """Log that a potential was made for crystals, when it is asked about something else."""
    _log.warning(
        "%s was trained on structures that are periodic in three dimensions; of molecules, "
        "clusters and surfaces it may be wrong by any amount",
        name,
    )


@dataclass(frozen=True, eq=False)
class Environments:
    """What each atom sees.

    Attributes
    ----------
    cutoff : array, shape (n_atoms,)
        Radius in Å; the same for all atoms unless the model's cutoff is adaptive. A pair is seen
        within the mean of its two radii.
    n_neighbors : array, shape (n_atoms,)
        Number of neighbors seen, periodic images included.
    """

    cutoff: NDArray[np.float64]
    n_neighbors: NDArray[np.int64]


class PETCalculator(ModelCalculator):
    """ASE calculator of a PET potential; without arguments it works offline.

    Energies are smooth in all positions: an atom enters and leaves the cutoff without a jump. A
    plain PET learns rotational symmetry from data and has it approximately; `ecse` makes it exact.

    A potential made with `system_conditioning` reads the total charge and the spin multiplicity
    2S + 1 from ``atoms.info["charge"]`` and ``atoms.info["spin_multiplicity"]`` (or ``"spin"``),
    by default a neutral singlet. Any other potential refuses a charge, and warns once that it
    takes a spin for that of its training data; initial charges and magnetic moments of single
    atoms mean nothing.

    Models that know their uncertainty, and lists of models, have more results, which
    ``calc.get_property(name, atoms)`` gives: ``energy_uncertainty`` (eV), ``energies_uncertainty``
    (n_atoms,), ``energy_ensemble`` (n_members,), ``forces_uncertainty`` (n_atoms, 3) in eV/Å and
    ``stress_uncertainty`` (6,) in eV/Å³, all of them standard deviations but the ensemble. They
    are listed in ``implemented_properties`` where they exist, and computed when asked for.

    Parameters
    ----------
    model : str, Path, PET, or a sequence of these
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
    ecse : {None, False, "auto", "local", "layerwise", "structure", "quadrature"}
        Symmetry under rotations and inversion. By default (None) the potential is evaluated as it
        was trained: exactly symmetric if that was layerwise or with angles in the attention, else
        plain. "auto" is the cheapest way to make any potential exact: as it is where it is exact by
        itself; "local", a few evaluations per atom, where one message-passing layer sees neighbors
        alone; else "structure", as many evaluations of the whole structure as it has frames, which
        suits small cells. "quadrature" averages over a fixed grid of rotations and is not exact.
        False insists on the plain model.
    quadrature_order : int
        Degree of that grid, odd; 3 takes 84 evaluations.
    skin : float
        Reach of the neighbor list beyond the cutoff in Å; a matter of speed only.
    non_conservative : bool or {"forces", "stress"}
        Take forces and stress (True) or one of them from heads that predict them directly. That
        is faster, but the forces are no gradient of the energy, which drifts in a simulation. The
        net force is removed.
    variant : str, optional
        Energy head to use of a potential that has several; by default the main one.
    cuda_graph : bool
        Compute the steps of a simulation in fixed shapes, on a GPU as one CUDA graph that is
        captured at the first of them (`pet_calc.calculators.fixed_step`). Much faster for small
        systems, with the same results; for one plain model with derivatives of the energy. On a
        CPU the same functions are called, slower than without.
    precision : {"highest", "high", "fast"}
        Of matrix products in float32 on a GPU: float32; TensorFloat-32, whose forces deviate by
        some 1e-3 of the largest; or bfloat16, by some 1e-2, which the Triton kernels alone compute
        (``PET_CALC_TRITON=1`` in the environment), all others in TensorFloat-32. A CPU knows the
        first one only.
    compile : bool
        Run the transformers through `torch.compile`, which takes half a minute at the first
        calculation and needs a C++ compiler on a CPU. That one logs (logger ``pet_calc``, level
        INFO) what a step takes with and without, and after how many it pays.

    Attributes
    ----------
    potentials : tuple of LoadedPotential
        Name, elements, SHA-256 and card of each potential in use; empty before "auto" has chosen.

    Raises
    ------
    PotentialNotFoundError
        If there is no such potential.
    IntegrityError
        If its files do not have their recorded SHA-256.
    ValueError
        For an option outside of those above, or that the model does not have.
    """

    def __init__(
        self,
        model: str | Path | PET | Sequence[str | Path | PET] = "auto",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        ecse: Symmetry | Literal[False] | None = None,
        quadrature_order: int = 3,
        skin: float = 1.0,
        non_conservative: NonConservative = False,
        variant: str | None = None,
        cuda_graph: bool = False,
        precision: Precision = "highest",
        compile: bool = False,
    ) -> None:
        super().__init__(skin=skin)
        if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
            raise ValueError(f"`dtype` must be 'float32' or 'float64', got {dtype!r}")
        check_symmetry(ecse)
        if not isinstance(non_conservative, bool | str) or non_conservative not in _DIRECT:
            raise ValueError(
                f"`non_conservative` must be False, True, 'forces' or 'stress', got "
                f"{non_conservative!r}"
            )
        if non_conservative and ecse is not None and ecse is not False:
            raise ValueError(
                f"`non_conservative` takes what a head says in one orientation, which `ecse` "
                f"{ecse!r} cannot make symmetric; leave one of the two out"
            )
        if cuda_graph and non_conservative:
            raise ValueError(
                "`cuda_graph` computes derivatives of the energy, which `non_conservative` does "
                "without; leave one of the two out"
            )
        sources = [model] if isinstance(model, str | Path | PET) else list_of_models(model)
        self._device = choose_device(device)
        require_precision(precision, self._device, require_kernels("auto", self._device))
        self.precision: Precision = precision
        if cuda_graph and compile:
            raise ValueError(
                "`cuda_graph` captures the kernels of the network as it is, and `compile` makes "
                "others of them; leave out one of the two"
            )
        self.cuda_graph = bool(cuda_graph)
        self._fixed = FixedStep(self._device, self.skin) if cuda_graph else None
        self.ecse = ecse
        self.quadrature_order = quadrature_order
        self.non_conservative: NonConservative = non_conservative
        self.variant = variant
        self.compile = compile
        self.auto = len(sources) == 1 and isinstance(sources[0], str) and sources[0] == "auto"
        self.dtype = dtype or common_dtype(sources)
        self.potentials: tuple[LoadedPotential, ...] = ()
        self._told = False
        self._told_open: set[str] = set()  # names of potentials
        self._llpr: LLPR | None = None
        if not self.auto:
            self._use([self._load(source) for source in sources])

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device

    @property
    def potential(self) -> LoadedPotential | None:
        """The potential in use, the first of several; None before "auto" has chosen."""
        return self.potentials[0] if self.potentials else None

    @property
    def training_domain(self) -> TrainingDomain | None:
        """What the potential was trained on; None where that was not recorded, or for several."""
        return self.potentials[0].domain if len(self.potentials) == 1 else None

    def model_for(self, system: System) -> EnergyModel:
        """The model that computes `system`, neutral and without unpaired spins.

        That is the potential in use, made symmetric as asked for, or the mean of several.

        Raises
        ------
        UnsupportedElementError
            See `potentials_for`.
        ValueError
            If the potential does not allow the symmetry that is asked for.
        """
        return self._model(system, [(0, 1)] * system.n_systems)

    @property
    def one_model(self) -> bool:
        """Not if it is evaluated in orientations that the structure gives."""
        return self.ecse in (None, False) or (
            bool(self.potentials)
            and not any(is_ensemble(p.model, self.ecse) for p in self.potentials)
        )

    def modeler(self, *structures: Atoms) -> Modeler:
        """As `model_for`, at the charges and spins of the structures."""
        return partial(self._model, states=[charge_and_spin(a) for a in structures])

    def selection(self, system: System) -> tuple[LoadedPotential, ...]:
        """The potentials that compute `system`."""
        return self.potentials_for(system)

    def select(self, selection: Any) -> None:
        """Compute with these potentials from now on."""
        if selection is not self.potentials:
            self._use(list(selection))

    def _model(self, system: System, states: Sequence[tuple[int, int]]) -> EnergyModel:
        """The model for systems of these charges and spin multiplicities; one holds for all."""
        states = list(states) * (system.n_systems if len(states) == 1 else 1)
        potentials = self.potentials_for(system)
        odd = next((spin for _, spin in states if spin != 1), 1)
        if odd != 1 and not self._told and not all(knows_conditions(p.model) for p in potentials):
            self._told = True
            warn_of_spin(self.name, odd)
        if not bool(system.pbc.all()):
            made_for_crystals = {p.name for p in potentials if p.crystals_only}
            for name in sorted(made_for_crystals - self._told_open):
                warn_of_open_directions(name)
            self._told_open |= made_for_crystals
        sizes = torch.bincount(system.system_index, minlength=system.n_systems).tolist()
        models = [
            symmetrized(
                p.model,
                system,
                self.ecse,
                self.quadrature_order,
                joint_conditions(p.model, states, sizes, p.name),
            )
            for p in potentials
        ]
        return models[0] if len(models) == 1 else Committee(models)

    def potentials_for(self, system: System) -> tuple[LoadedPotential, ...]:
        """The potentials in use; with "auto" one that was made for such structures.

        Raises
        ------
        UnsupportedElementError
            If the potential, or with "auto" every shipped one, lacks an element.
        """
        if self.auto:
            entry = other_choice(self.potential, system, "pet", self.dtype)
            if entry is not None:
                self._use([self._load(entry)])
        for potential in self.potentials:
            require_elements(
                system, potential.model.atomic_numbers, f"the potential {potential.name}"
            )
        return self.potentials

    def step(self, atoms: Atoms, modeler: Modeler) -> Results:
        """As without `cuda_graph`, or with it in fixed shapes."""
        if self._fixed is None or self._fixed.problem is not None:
            return super().step(atoms, modeler)
        system = system_from_atoms(atoms, "cpu")
        with matmul_precision(self.precision):
            return self._fixed(modeler(system), system)

    def reset(self) -> None:
        """Forget structure, results, neighbor list, and the memory of steps in fixed shapes."""
        super().reset()
        if self._fixed is not None:
            self._fixed = FixedStep(self._device, self.skin)

    def evaluation(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """Results of one model or of several, with derivatives or direct heads."""
        with matmul_precision(self.precision):
            return self._evaluation(model, system, edges)

    def _evaluation(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        if isinstance(model, Committee):
            return evaluate_committee(model, system, edges, self._evaluation)
        forces, stress = _DIRECT[self.non_conservative]
        if not forces and not stress:
            return evaluate(model, system, edges)
        plain, conditions = parts(model)
        return evaluate_direct(
            plain, system, edges, forces=forces, stress=stress, conditions=conditions
        )

    def further_results(
        self, names: Sequence[str], modeler: Modeler, system: System, edges: Edges
    ) -> dict[str, Any]:
        """Spread over orientations, and uncertainties of a model that knows them."""
        found = super().further_results(names, modeler, system, edges)
        wanted = set(names)
        if self._llpr is None or not wanted & {*ENERGY_UNCERTAINTIES, *DERIVATIVE_UNCERTAINTIES}:
            return found
        plain, conditions = parts(modeler(system))
        uncertainties = evaluate_uncertainty(
            plain,
            self._llpr,
            system,
            edges,
            derivatives=bool(wanted & set(DERIVATIVE_UNCERTAINTIES)),
            conditions=conditions,
        )
        values = ase_uncertainties(uncertainties, stress=bool(system.pbc.all()))
        return found | {k: v for k, v in values.items() if k in self.implemented_properties}

    def get_features(self, atoms: Atoms | None = None, *, pooled: bool = False) -> NDArray[Any]:
        """Last-layer features: what the last linear maps of the energy head act on.

        They are those of the structure as it is oriented, whatever `ecse` is.

        Parameters
        ----------
        atoms : ase.Atoms, optional
            By default the structure of the last calculation.
        pooled : bool
            Sum over the atoms, on which the energy depends; divide by their number to compare
            structures of different size.

        Returns
        -------
        array, shape (n_atoms, n_features) or (n_features,), float64

        Raises
        ------
        ValueError
            For several models: features belong to one.
        """
        system, edges, model, conditions = self._seen(atoms)
        with torch.no_grad():
            vectors = edge_vectors(system, edges).to(model.dtype)
            tokens = model.features(model.species(system.numbers), edges, vectors, conditions)
            features = model.last_layer_features(tokens).double()
        return array(features.sum(0) if pooled else features)

    def get_environments(self, atoms: Atoms | None = None) -> Environments:
        """Cutoff radius and number of neighbors of each atom.

        Parameters
        ----------
        atoms : ase.Atoms, optional
            By default the structure of the last calculation.

        Raises
        ------
        ValueError
            For several models: environments belong to one.
        """
        system, edges, model, _ = self._seen(atoms)
        with torch.no_grad():
            vectors = edge_vectors(system, edges).to(model.dtype)
            found = model.environment(edges, vectors, system.n_atoms)
        counts = torch.bincount(found.edges.edge_index[0], minlength=system.n_atoms)
        return Environments(array(found.atomic_cutoff), counts.cpu().numpy())

    def _seen(self, atoms: Atoms | None) -> tuple[System, Edges, PET, Conditions | None]:
        """A structure, its edges, and the plain model with the conditions that it is under."""
        structure = self.atoms if atoms is None else atoms
        if structure is None:
            raise ValueError("`atoms` must be given before the first calculation, got None")
        system = system_from_atoms(structure, self.device)
        potentials = self.potentials_for(system)
        if len(potentials) > 1:
            raise ValueError(
                f"this belongs to one model, but the calculator has {len(potentials)}; make a "
                f"calculator of one of them"
            )
        model, _ = parts(potentials[0].model)
        conditions = known_conditions(
            model, *charge_and_spin(structure), system.n_atoms, potentials[0].name
        )
        return system, neighbor_list(system, model.cutoff), model, conditions

    def _load(self, source: str | Path | PET | pretrained.PotentialEntry) -> LoadedPotential:
        """A potential on the device, read through the head in use."""
        if isinstance(source, PET):
            elements = tuple(chemical_symbols[z] for z in source.atomic_numbers)
            # a copy: freezing the caller's own model would stop its training
            loaded = LoadedPotential("pet", copy_model(source, DTYPES[self.dtype]), elements)
        else:
            loaded = pretrained.load(source, self.dtype)
            if isinstance(loaded.model, Crystalformer):
                raise ValueError(
                    f"PETCalculator runs PET models, but {loaded.name} is a "
                    f"{type(loaded.model).__name__}; "
                    f"`pet_calc.calculators.calculator_for` finds the calculator of any potential"
                )
        model = loaded.model.to(self._device)
        if self.variant is not None:
            model = parts(model)[0].with_energy_head(self.variant)
        for direct, head in zip(
            _DIRECT[self.non_conservative], ("direct_forces", "direct_stress"), strict=True
        ):
            if direct:
                require_head(parts(model)[0], head)
        if self.compile:
            compile_regions(parts(model)[0])
        return replace(loaded, model=model)

    def _use(self, potentials: list[LoadedPotential]) -> None:
        """Compute with these from now on, and declare the results that they have."""
        self.potentials = tuple(potentials)
        forces, stress = _DIRECT[self.non_conservative]
        self._llpr = None
        names = [*PROPERTIES, *ROTATION_PROPERTIES]
        if len(potentials) > 1:
            Committee([p.model for p in potentials])  # refuses what cannot be averaged
            names += [*ENERGY_UNCERTAINTIES, *DERIVATIVE_UNCERTAINTIES]
        else:
            (only,) = potentials
            single = isinstance(only.model, PET) and not is_ensemble(only.model, self.ecse)
            if only.folder is not None and isinstance(only.model, PET) and single:
                found = find_uncertainty(only.folder, only.model.energy_head)
                self._llpr = None if found is None else found.to(self._device)
            if self._llpr is not None:
                names += ENERGY_UNCERTAINTIES[:2]
                if self._llpr.n_members > 1:
                    names.append(ENERGY_UNCERTAINTIES[2])
                    # the ensemble spreads the energy: it says nothing about direct heads
                    derived = zip(DERIVATIVE_UNCERTAINTIES, (forces, stress), strict=True)
                    names += [name for name, direct in derived if not direct]
        self.implemented_properties = names

    def _get_name(self) -> str:
        """Name under which ASE's files record the calculator: that of the potential."""
        return " + ".join(p.name for p in self.potentials) or "pet"

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What ASE's files record: the potential with its SHA-256, and the options."""
        names = [p.name for p in self.potentials] or ["auto"]
        digests = [p.digest for p in self.potentials] or [None]
        return {
            "model": names[0] if len(names) == 1 else names,
            "sha256": digests[0] if len(digests) == 1 else digests,
            "dtype": self.dtype,
            "device": str(self.device),
            "ecse": self.ecse,
            "quadrature_order": self.quadrature_order,
            "skin": self.skin,
            **self._rare_options(),
        }

    def _rare_options(self) -> dict[str, Any]:
        """Options that differ from what they are by default."""
        options = {
            "non_conservative": (self.non_conservative, False),
            "variant": (self.variant, None),
            "cuda_graph": (self.cuda_graph, False),
            "precision": (self.precision, "highest"),
            "compile": (self.compile, False),
        }
        return {name: value for name, (value, default) in options.items() if value != default}

    def __repr__(self) -> str:
        names = [p.name for p in self.potentials] or ["auto"]
        rare = "".join(f", {name}={value!r}" for name, value in self._rare_options().items())
        return (
            f"PETCalculator({names[0] if len(names) == 1 else names!r}, "
            f"device={str(self.device)!r}, dtype={self.dtype!r}, "
            f"ecse={self.ecse!r}, skin={self.skin:g}{rare})"
        )


def parts(model: EnergyModel) -> tuple[PET, Conditions | None]:
    """A PET and the charge and spin that it is under; `ValueError` for other models."""
    if isinstance(model, ConditionedPET):
        return model.model, model.conditions
    if isinstance(model, PET):
        return model, None
    raise ValueError(
        f"variants, direct heads, compilation, features and environments need a model of the "
        f"current PET, got {type(model).__name__}"
    )


def list_of_models(models: object) -> list[str | Path | PET]:
    """The models of a committee; `TypeError` for anything else."""
    kinds = (str, Path, PET)
    if not isinstance(models, list | tuple) or not all(isinstance(m, kinds) for m in models):
        raise TypeError(
            f"`model` must be a name, a path or a PET model, or a list of these, got "
            f"{type(models).__name__}"
        )
    if len(models) < 2 or "auto" in [m for m in models if isinstance(m, str)]:
        raise ValueError(
            f"a list of models needs at least two of them, each named, got "
            f"{[m if isinstance(m, str) else type(m).__name__ for m in models]}"
        )
    return list(models)


def common_dtype(sources: Sequence[str | Path | PET]) -> str:
    """Precision for models if none is asked for: their own, and float32 for those on disk."""
    found = {
        str(m.dtype).removeprefix("torch.") if isinstance(m, PET) else "float32" for m in sources
    }
    if len(found) > 1:
        raise ValueError(f"`dtype` must be named for models of several, got {sorted(found)}")
    (dtype,) = found
    if dtype not in DTYPES:
        raise ValueError(f"`model` must be in float32 or float64, got {dtype}")
    return dtype


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
