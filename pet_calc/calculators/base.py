"""An ASE calculator around any `EnergyModel`.

The physics is `pet_calc.calculators.validation.checked_evaluation`, a function of model, system and
edges. The calculator adds what ASE wants: conversion, a cache of the last structure, and a
neighbor list with a skin.
"""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs

from pet_calc.calculators.batches import EdgeLimit, evaluate_in_batches
from pet_calc.calculators.conditions import same_info
from pet_calc.calculators.results import (
    PERIODIC,
    PROPERTIES,
    ROTATION_PROPERTIES,
    array,
    ase_results,
)
from pet_calc.calculators.validation import checked_evaluation
from pet_calc.calculators.verification import SelfCheck
from pet_calc.geometry import Edges, System
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.ecse.spread import rotation_spread
from pet_calc.neighbors import VerletState, neighbor_list, update_verlet
from pet_calc.processors import tell_waiting_threads

#: The model for a system of a structure's atoms.
Modeler = Callable[[System], EnergyModel]


class ModelCalculator(Calculator):
    """ASE's calculator interface to an `EnergyModel`.

    A subclass says which model computes a system (`model_for`), and may say how (`evaluation`),
    depending on what else of a structure (`modeler`), and with which results beside the usual
    ones (`further_results`). Everything here is float64 in ASE units (eV, Å), whatever the model
    computes in.

    Parameters
    ----------
    skin : float
        The neighbor list reaches this much beyond the cutoff, in Å, and is kept until an atom
        has moved by half of it. It changes the speed, not the results. 0 rebuilds every time.
    """

    # ASE declares both without ClassVar
    implemented_properties: list[str] = [*PROPERTIES, *ROTATION_PROPERTIES]  # noqa: RUF012
    # the models know neither charges nor spins of single atoms
    ignored_changes: builtins.set[str] = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(self, *, skin: float = 1.0) -> None:
        if not np.isfinite(skin) or skin < 0:
            raise ValueError(f"`skin` must be a number of Å and not negative, got {skin}")
        super().__init__()
        # a list of its own: extending that of one calculator must not change all the others
        self.implemented_properties = [*PROPERTIES, *ROTATION_PROPERTIES]
        self.skin = float(skin)
        self._verlet: VerletState | None = None
        self._self_check = SelfCheck()

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
        if self.atoms is not None and not same_info(self.atoms, atoms):
            changes.append("info")
        return changes

    @abstractmethod
    def model_for(self, system: System) -> EnergyModel:
        """The model that computes `system`."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model computes."""

    def modeler(self, *structures: Atoms) -> Modeler:
        """How structures are computed: the model for their joint system, which may be turned."""
        return self.model_for

    def selection(self, system: System) -> Any:
        """What the calculator computes `system` with, chosen if need be.

        Structures with the same one (by ``==``) can be computed together.
        """
        return None

    def select(self, selection: Any) -> None:
        """Compute with that `selection` from now on."""

    @property
    def one_model(self) -> bool:
        """Whether a model holds for its structure in other geometries too."""
        return True

    def evaluation(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """Energy, per-atom energies, forces and stress, unchecked."""
        return evaluate(model, system, edges)

    def believed_evaluation(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """As `evaluation`, by accelerated kernels only as far as they agree with the reference."""
        if self.device.type == "cpu":
            tell_waiting_threads(torch.get_num_threads())
        return self._self_check.evaluate(
            self.evaluation, model, system, edges, lambda: self.selection(system)
        )

    def further_results(
        self, names: Sequence[str], modeler: Modeler, system: System, edges: Edges
    ) -> dict[str, Any]:
        """Results that are computed only when one of `names` asks for them."""
        if not set(names) & set(ROTATION_PROPERTIES):
            return {}
        spread = rotation_spread(modeler, system, edges, evaluation=self.believed_evaluation)
        return {
            "energy_rotation_std": float(spread.energy[0]),
            "forces_rotation_std": array(spread.forces),
        }

    def evaluate(self, atoms: Atoms) -> Results:
        """Energy, per-atom energies, forces and stress, without use or change of any cache.

        Returns
        -------
        Results
            Tensors in float64: energy (1,) in eV, energies (n_atoms,) in eV, forces (n_atoms, 3)
            in eV/Å, stress (1, 6) in eV/Å³ (NaN if not periodic in three dimensions).

        Raises
        ------
        InvalidStructureError, UnsupportedElementError, SimulationError
            See `system_from_atoms` and `checked_evaluation`.
        """
        system = system_from_atoms(atoms, self.device)
        model = self.modeler(atoms)(system)
        edges = neighbor_list(system, model.cutoff)
        return checked_evaluation(model, system, edges, self.believed_evaluation)

    def evaluate_many(
        self,
        structures: Iterable[Atoms],
        *,
        max_edges: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Results]:
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
        list of Results
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
        for k, answer in enumerate(answers):
            if not isinstance(answer, Results):
                raise type(answer)(
                    f"structure {k} of {len(listed)} ({listed[k].get_chemical_formula()}): {answer}"
                ) from answer
            found.append(answer)
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
        periodic = bool(np.all(structure.pbc))
        if not periodic and PERIODIC & set(properties):
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
        modeler = self.modeler(self.atoms)
        if not known:
            known = ase_results(self.step(self.atoms, modeler), stress=periodic)
        missing = [name for name in properties if name not in known]
        more: dict[str, Any] = {}
        if missing:
            system = system_from_atoms(self.atoms, self.device)
            edges = self.edges(modeler(system), system)
            more = self.further_results(missing, modeler, system, edges)
        self.results = {**known, **more}

    def edges(self, model: EnergyModel, system: System) -> Edges:
        """Pairs within the model's cutoff, from the list with a skin where it still holds."""
        self._verlet, edges = update_verlet(
            self._verlet, system, cutoff=model.cutoff, skin=self.skin
        )
        return edges

    def step(self, atoms: Atoms, modeler: Modeler) -> Results:
        """Checked results of a structure that follows the last one."""
        system = system_from_atoms(atoms, self.device)
        model = modeler(system)
        return checked_evaluation(
            model, system, self.edges(model, system), self.believed_evaluation
        )

    def export_properties(self) -> Properties:
        """Results under the names that ASE knows, for ``Atoms.get_properties``."""
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
