"""PET as an ASE calculator.

>>> from ase.build import molecule
>>> from pet_calc import PETCalculator
>>> water = molecule("H2O")
>>> water.calc = PETCalculator()
>>> forces = water.get_forces()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.fixed_step import FixedStep
from pet_calc.calculators.potential import PotentialCalculator, Source, given
from pet_calc.calculators.results import DERIVATIVE_UNCERTAINTIES, array
from pet_calc.calculators.symmetry import Symmetry, check_symmetry, is_ensemble, symmetrized
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.kernels.operation import Kernels
from pet_calc.kernels.precision import Precision, matmul_precision
from pet_calc.models import EnergyModel, Results
from pet_calc.models.architectures import Model
from pet_calc.models.pet import PET
from pet_calc.models.pet.compiled import compile_regions
from pet_calc.models.pet.direct import DirectHeads, require_head
from pet_calc.models.pet.published.original import OriginalPET
from pet_calc.models.pet.uncertainty import LLPR
from pet_calc.neighbors import neighbor_list
from pet_calc.pretrained import LoadedPotential, PotentialEntry

NonConservative = bool | Literal["forces", "stress"]
_DIRECT: Final[dict[NonConservative, tuple[bool, bool]]] = {
    False: (False, False),
    True: (True, True),
    "forces": (True, False),
    "stress": (False, True),
}


@dataclass(frozen=True, eq=False)
class Environments:
    """The neighborhood of each atom.

    Attributes
    ----------
    cutoff : array, shape (n_atoms,)
        Radius in Å; the same for all atoms unless the model's cutoff is adaptive. A pair counts
        within the mean of its two radii.
    n_neighbors : array, shape (n_atoms,)
        Number of neighbors, periodic images included.
    """

    cutoff: NDArray[np.float64]
    n_neighbors: NDArray[np.int64]


class PETCalculator(PotentialCalculator):
    """ASE calculator of a PET potential; without arguments it works offline.

    A plain PET learns rotational symmetry from data and has it approximately; `ecse` makes it
    exact. See `PotentialCalculator` for charges, spins, uncertainties and committees.

    Parameters
    ----------
    model, device, dtype, skin, precision, kernels
        See `PotentialCalculator`.
    ecse : {None, False, "auto", "local", "layerwise", "structure", "quadrature"}
        Symmetry under rotations and inversion. By default (None) the potential is evaluated as it
        was trained: exactly symmetric if that was layerwise or with angles in the attention, else
        plain. "auto" is the cheapest way to make any potential exact: as it is where it is exact by
        itself; "local", a few evaluations per atom, where one message-passing layer sees neighbors
        alone; else "structure", as many evaluations of the whole structure as it has frames, which
        suits small cells. "quadrature" averages over a fixed grid of 84 rotations and is not exact.
        False insists on the plain model.
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
    compile : bool
        Run the transformers through `torch.compile`, which takes half a minute at the first
        calculation and needs a C++ compiler on a CPU. That one logs (logger ``pet_calc``, level
        INFO) what a step takes with and without, and after how many it pays.
    """

    architecture = "pet"
    model_types = (PET, OriginalPET)

    def __init__(
        self,
        model: Source | Sequence[Source] = "auto",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        ecse: Symmetry | Literal[False] | None = None,
        skin: float = 1.0,
        non_conservative: NonConservative = False,
        variant: str | None = None,
        cuda_graph: bool = False,
        precision: Precision = "highest",
        kernels: Kernels = "auto",
        compile: bool = False,
    ) -> None:
        check_symmetry(ecse)
        check_options(ecse, non_conservative, cuda_graph=cuda_graph, compile=compile)
        self.ecse = ecse
        self.non_conservative: NonConservative = non_conservative
        self.variant = variant
        self.cuda_graph = bool(cuda_graph)
        self.compile = compile
        super().__init__(
            model, device=device, dtype=dtype, skin=skin, precision=precision, kernels=kernels
        )
        self._fixed = self._fixed_step() if cuda_graph else None

    def reset(self) -> None:
        """Forget structure, results, neighbor list, and the memory of steps in fixed shapes."""
        super().reset()
        if self.cuda_graph:
            self._fixed = self._fixed_step()

    def _fixed_step(self) -> FixedStep:
        return FixedStep(self.device, self.skin, self.kernels)

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
        system, edges, model = self._inspected(atoms)
        with torch.no_grad():
            vectors = edge_vectors(system, edges).to(model.dtype)
            features = model.last_layer_features(model.features(system, edges, vectors)).double()
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
        system, edges, model = self._inspected(atoms)
        with torch.no_grad():
            vectors = edge_vectors(system, edges).to(model.dtype)
            found = model.environment(edges, vectors, system.n_atoms)
        counts = torch.bincount(found.edges.edge_index[0], minlength=system.n_atoms)
        return Environments(array(found.atomic_cutoff), counts.cpu().numpy())

    def _inspected(self, atoms: Atoms | None) -> tuple[System, Edges, PET]:
        """A structure, its edges, and the plain model."""
        structure = self.atoms if atoms is None else atoms
        if structure is None:
            raise ValueError("`atoms` must be given before the first calculation, got None")
        self.model_for(structure)
        if len(self.potentials) > 1:
            raise ValueError(
                f"this belongs to one model, but the calculator has {len(self.potentials)}; make a "
                f"calculator of one of them"
            )
        model = current_pet(self.potentials[0].model)
        system = system_from_atoms(structure, self.device)
        return system, neighbor_list(system, model.cutoff), model

    def _step(self, model: EnergyModel, atoms: Atoms) -> Results:
        """As without `cuda_graph`, or with it in fixed shapes."""
        if self._fixed is None or self._fixed.problem is not None:
            return super()._step(model, atoms)
        with matmul_precision(self.precision):
            return self._fixed(model, system_from_atoms(atoms, "cpu"))

    def _load(self, source: Source | PotentialEntry) -> LoadedPotential:
        """A potential on the device, read through the head in use."""
        loaded = super()._load(source)
        if self.variant is not None:
            loaded = replace(loaded, model=current_pet(loaded.model).with_energy_head(self.variant))
        direct = zip(
            _DIRECT[self.non_conservative], ("direct_forces", "direct_stress"), strict=True
        )
        for wanted, head in direct:
            if wanted:
                require_head(current_pet(loaded.model), head)
        if self.compile:
            compile_regions(current_pet(loaded.model))
        return loaded

    def _assembled(self, model: Model) -> EnergyModel:
        """The model with direct heads, or symmetric as asked for."""
        forces, stress = _DIRECT[self.non_conservative]
        if forces or stress:
            return DirectHeads(current_pet(model), forces=forces, stress=stress)
        return symmetrized(model, self.ecse)

    def _find_llpr(self, potential: LoadedPotential) -> LLPR | None:
        # features of one orientation say nothing about an average over several
        return None if is_ensemble(potential.model, self.ecse) else super()._find_llpr(potential)

    def _uncertain_derivatives(self) -> Sequence[str]:
        # the ensemble spreads the energy, which direct heads do not derive from
        direct = zip(DERIVATIVE_UNCERTAINTIES, _DIRECT[self.non_conservative], strict=True)
        return [name for name, by_head in direct if not by_head]

    def _options(self) -> dict[str, Any]:
        rare = {
            "non_conservative": (self.non_conservative, False),
            "variant": (self.variant, None),
            "cuda_graph": (self.cuda_graph, False),
            "compile": (self.compile, False),
        }
        return {"ecse": self.ecse, **super()._options(), **given(rare)}


def check_options(
    ecse: Symmetry | Literal[False] | None,
    non_conservative: NonConservative,
    *,
    cuda_graph: bool,
    compile: bool,
) -> None:
    """Raise `ValueError` for options that exclude each other."""
    if not isinstance(non_conservative, bool | str) or non_conservative not in _DIRECT:
        raise ValueError(
            f"`non_conservative` must be False, True, 'forces' or 'stress', got "
            f"{non_conservative!r}"
        )
    if non_conservative and ecse is not None and ecse is not False:
        raise ValueError(
            f"`non_conservative` takes the prediction of a head in one orientation, which `ecse` "
            f"{ecse!r} cannot make symmetric; leave one of the two out"
        )
    if cuda_graph and non_conservative:
        raise ValueError(
            "`cuda_graph` computes derivatives of the energy, which `non_conservative` does "
            "without; leave one of the two out"
        )
    if cuda_graph and compile:
        raise ValueError(
            "`cuda_graph` captures the kernels of the network as it is, and `compile` makes "
            "others of them; leave out one of the two"
        )


def current_pet(model: Model) -> PET:
    """A model of the current PET; `ValueError` for others."""
    if isinstance(model, PET):
        return model
    raise ValueError(
        f"variants, direct heads, compilation, features and environments need a model of the "
        f"current PET, got {type(model).__name__}"
    )
