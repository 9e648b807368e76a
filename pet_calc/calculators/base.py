"""An ASE calculator around any `EnergyModel`.

The physics is `pet_calc.models.evaluate`, a function of model, system and edges. The calculator
adds what ASE wants: conversion, validation, a cache of the last structure, and a neighbor list with
a skin.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs

from pet_calc.calculators.batches import EdgeLimit, evaluate_in_batches
from pet_calc.calculators.results import (
    PERIODIC,
    PROPERTIES,
    ROTATION_PROPERTIES,
    array,
    ase_results,
    ase_uncertainties,
)
from pet_calc.calculators.validation import require_elements, require_finite
from pet_calc.calculators.verification import SelfCheck
from pet_calc.geometry import Edges, System
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.io.structures.charge_and_spin import same_state
from pet_calc.io.structures.separation import require_separation
from pet_calc.kernels.operation import Kernels
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.ecse.spread import rotation_spread
from pet_calc.models.pet.uncertainty import LastLayerEnsemble
from pet_calc.neighbors import VerletState, update_verlet
from pet_calc.processors import tell_waiting_threads


class ModelCalculator(Calculator):
    """ASE's calculator interface to an `EnergyModel`.

    Everything here is float64 in ASE units (eV, Å), whatever the model computes in.

    Parameters
    ----------
    model : EnergyModel, optional
        A subclass may choose it later, see `model_for`.
    device : torch.device
        Where the model computes.
    skin : float
        The neighbor list reaches this much beyond the cutoff, in Å, and is kept until an atom
        has moved by half of it. It changes the speed, not the results. 0 rebuilds every time.
    kernels : {"auto", "reference", "triton"}
        See `pet_calc.kernels.operation.require_kernels`.

    Attributes
    ----------
    model : EnergyModel or None
        What computes energies now.
    device : torch.device
    skin : float
    """

    # ASE declares both without ClassVar
    implemented_properties: list[str] = [*PROPERTIES, *ROTATION_PROPERTIES]  # noqa: RUF012
    # charges and spins of single atoms are no input of any model
    ignored_changes: builtins.set[str] = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: EnergyModel | None = None,
        *,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        skin: float = 1.0,
        kernels: Kernels = "auto",
    ) -> None:
        if not np.isfinite(skin) or skin < 0:
            raise ValueError(f"`skin` must be a number of Å and not negative, got {skin}")
        super().__init__()
        # a list of its own: extending that of one calculator must not change all the others
        self.implemented_properties = [*PROPERTIES, *ROTATION_PROPERTIES]
        self.model = model
        self.device = device
        self.skin = float(skin)
        self._verlet: VerletState | None = None
        self.kernels: Kernels = kernels
        self._self_check = SelfCheck(kernels)

    @property
    def accelerated(self) -> dict[str, str | None]:
        """Each accelerated form that was used: None if it is, else why it is not any more.

        A form is compared with the reference when it is first used; see
        `pet_calc.calculators.verification`. Before that it is not listed.
        """
        return dict(self._self_check.verdicts)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation, charge and spin included."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None and not same_state(self.atoms, atoms):
            changes.append("info")
        return changes

    def model_for(self, *structures: Atoms) -> EnergyModel:
        """The model that computes structures, which is chosen here if need be.

        Raises
        ------
        UnsupportedElementError
            For an element that it does not cover.
        InvalidStructureError
            For a charge or spin that it does not support.
        """
        if self.model is None:
            raise ValueError(f"{type(self).__name__} was made without a model")
        for atoms in structures:
            require_elements(atoms, self.model.atomic_numbers, "the model")
        return self.model

    def evaluate(self, atoms: Atoms) -> dict[str, Any]:
        """Results of a structure, without use or change of any cache.

        Returns
        -------
        dict
            By ASE's names, in NumPy arrays of float64: energy and free_energy in eV, energies
            (n_atoms,) in eV, forces (n_atoms, 3) in eV/Å; stress (6,) in eV/Å³ if the structure is
            periodic in three dimensions; uncertainties of a list of models.

        Raises
        ------
        InvalidStructureError
            For a structure without meaning, overlapping atoms, and unsupported charges.
        UnsupportedElementError
            For an element that the model does not cover.
        SimulationError
            If the model gives an energy or force that is not a finite number.
        """
        model = self.model_for(atoms)
        system = system_from_atoms(atoms, self.device)
        edges = self._self_check.neighbor_list(system, model.cutoff)
        require_separation(system, edges)
        results = self._evaluate(model, system, edges)
        return ase_results(results, stress=bool(np.all(atoms.pbc)))

    def evaluate_many(
        self,
        structures: Iterable[Atoms],
        *,
        max_edges: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """As `evaluate` for each of many structures, several in one call of the model.

        They may differ in size, elements, periodicity, charge and spin. A batch takes as many as
        `max_edges` allows: results do not depend on that beyond rounding.

        Parameters
        ----------
        structures : iterable of Atoms
        max_edges : int, optional
            Directed neighbor pairs in one call of the model, single structures that have more
            excepted. By default `pet_calc.geometry.graph.BATCH_EDGES`, beyond which a CPU gains
            nothing; on a GPU it doubles as long as memory lasts.
        on_progress : callable, optional
            Called with the number of structures that are done and their total.

        Returns
        -------
        list of dict
            In the order of `structures`.

        Raises
        ------
        InvalidStructureError, UnsupportedElementError, SimulationError
            As from `evaluate`, for the first structure that fails, with its index in the message.
            The others are computed first.
        """
        listed = list(structures)
        limit = EdgeLimit.for_device(self.device, max_edges)
        answers = evaluate_in_batches(self, listed, limit, on_progress)
        found = []
        for k, (atoms, answer) in enumerate(zip(listed, answers, strict=True)):
            if not isinstance(answer, Results):
                raise type(answer)(
                    f"structure {k} of {len(listed)} ({atoms.get_chemical_formula()}): {answer}"
                ) from answer
            found.append(ase_results(answer, stress=bool(np.all(atoms.pbc))))
        return found

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of `atoms` into a new ``results`` dictionary.

        One backward pass gives forces and stress together, so nothing is computed twice when a
        program asks for one after the other. What costs more is computed when it is asked for,
        and added to the results of the same structure.

        Raises
        ------
        ase.calculators.calculator.PropertyNotImplementedError
            If the stress or its uncertainty is asked for and the structure is not periodic in three
            dimensions.
        InvalidStructureError, UnsupportedElementError, SimulationError
            See `evaluate`.
        """
        structure = self.atoms if atoms is None else atoms
        if structure is None:
            raise ValueError("`atoms` must be given at the first calculation, got None")
        if not np.all(structure.pbc) and PERIODIC & set(properties):
            # before anything is forgotten: energy and forces of the structure stay valid
            raise PropertyNotImplementedError(
                f"stress is energy per volume and needs periodicity in three dimensions, but the "
                f"structure has pbc={structure.pbc.tolist()}; set atoms.pbc = True if it is a "
                f"crystal or a liquid"
            )
        # ASE says what has changed: nothing, if it asks for one more result of the same structure
        known = {} if system_changes else self.results
        # not through the base class, which would make the folder of an input file as well
        self.results = {}
        self.atoms = structure.copy()
        # ASE's copy shares the arrays in there, whose changes in place would go unnoticed
        self.atoms.info = {
            k: v.copy() if isinstance(v, np.ndarray) else v for k, v in structure.info.items()
        }
        model, periodic = self.model_for(self.atoms), bool(np.all(structure.pbc))
        if not known:
            ensemble = self._uncertainty_model(properties)
            together = ensemble is not None and ensemble.model is model
            results = self._step(
                ensemble if ensemble is not None and together else model, self.atoms
            )
            known = self._declared(ase_results(results, stress=periodic))
        missing = [name for name in properties if name not in known]
        self.results = {**known, **self._more(model, self.atoms, missing)} if missing else known

    def _more(self, model: EnergyModel, atoms: Atoms, names: Sequence[str]) -> dict[str, Any]:
        """Results that are computed only when one of `names` asks for them."""
        found: dict[str, Any] = {}
        ensemble = self._uncertainty_model(names)
        spread = bool(set(names) & set(ROTATION_PROPERTIES))
        if ensemble is None and not spread:
            return found
        system = system_from_atoms(atoms, self.device)
        edges = self._edges(model, system)
        if spread:
            deviation = rotation_spread(model, system, edges, evaluation=self._evaluate)
            found["energy_rotation_std"] = float(deviation.energy[0])
            found["forces_rotation_std"] = array(deviation.forces)
        if ensemble is not None:
            results = ensemble.evaluate(system, edges, forces=False, stress=False)
            assert results.uncertainties is not None
            found |= ase_uncertainties(results.uncertainties, stress=bool(np.all(atoms.pbc)))
        return self._declared(found)

    def _declared(self, results: dict[str, Any]) -> dict[str, Any]:
        """Those of the results that the calculator declares."""
        return {k: v for k, v in results.items() if k in self.implemented_properties}

    def _step(self, model: EnergyModel, atoms: Atoms) -> Results:
        """Results of a structure that follows the last one."""
        system = system_from_atoms(atoms, self.device)
        edges = self._edges(model, system)
        require_separation(system, edges)
        return self._evaluate(model, system, edges)

    def _edges(self, model: EnergyModel, system: System) -> Edges:
        """Pairs within the model's cutoff, from the list with a skin where it still holds."""
        self._verlet, edges = update_verlet(
            self._verlet,
            system,
            cutoff=model.cutoff,
            skin=self.skin,
            build=self._self_check.neighbor_list,
        )
        return edges

    def _evaluate(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """Results by verified kernels, all of them finite numbers; for batches too."""
        if self.device.type == "cpu":
            tell_waiting_threads(torch.get_num_threads())
        results = self._self_check.evaluate(
            self._unverified, model, system, edges, lambda: self._selection
        )
        require_finite(results)
        return results

    def _unverified(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """Energy, per-atom energies, forces and stress as the model gives them."""
        return evaluate(model, system, edges)

    def _uncertainty_model(self, names: Sequence[str]) -> LastLayerEnsemble | None:
        """The model with the uncertainties that `names` ask for; None if they ask for none."""
        return None

    @property
    def _selection(self) -> Any:
        """What the calculator computes with now; structures with one selection share a batch."""
        return None

    def _select(self, selection: Any) -> None:
        """Compute with that `selection` from now on."""

    def export_properties(self) -> Properties:
        """Results under the names that ASE has, for ``Atoms.get_properties``."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})

    def reset(self) -> None:
        """Forget structure, results and neighbor list; the next calculation starts afresh."""
        super().reset()
        self._verlet = None

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse changes: a calculator keeps the options that it was made with."""
        if kwargs:
            raise TypeError(
                f"the options of a calculator are fixed, got {sorted(kwargs)}; make a new "
                f"{type(self).__name__} with them"
            )
        return {}
