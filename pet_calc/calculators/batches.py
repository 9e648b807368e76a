"""Many structures in few calls of a model, each with results as if it were alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from ase import Atoms
from torch import Tensor

from pet_calc.calculators.verification import SelfCheck
from pet_calc.errors import PetCalcError, SimulationError
from pet_calc.geometry import Edges, System
from pet_calc.geometry.graph import BATCH_EDGES
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.io.structures.separation import require_separation
from pet_calc.models import EnergyModel, Results
from pet_calc.models.interface import Uncertainties


@dataclass(eq=False)
class EdgeLimit:
    """How many edges a batch may have: it grows on a GPU until its memory is full."""

    edges: float
    growing: bool
    reached: bool = False

    @classmethod
    def for_device(cls, device: torch.device, max_edges: int | None = None) -> EdgeLimit:
        """A limit of `max_edges`, or one that suits the device.

        Raises
        ------
        ValueError
            If `max_edges` is not positive.
        """
        if max_edges is not None and max_edges < 1:
            raise ValueError(f"`max_edges` must be at least 1, got {max_edges}")
        return cls(max_edges or BATCH_EDGES, growing=max_edges is None and device.type == "cuda")

    def succeeded(self, edges: int, waiting: bool) -> None:
        """A batch of that many edges was computed while others waited for room."""
        if self.growing and waiting and edges > 0.5 * self.edges:
            self.edges *= 2

    def out_of_memory(self, edges: int) -> None:
        """A batch of that many edges did not fit."""
        self.edges, self.growing, self.reached = edges / 2, False, True

    def chunks(self, edges: Sequence[int]) -> list[slice]:
        """Parts in which to compute structures of so many edges: one until memory was too small."""
        cuts, total = [0], 0
        for k, n in enumerate(edges):
            if self.reached and k > cuts[-1] and total + n > self.edges:
                cuts.append(k)
                total = 0
            total += n
        return [slice(a, b) for a, b in itertools.pairwise([*cuts, len(edges)])]


@dataclass(frozen=True, eq=False)
class Part:
    """A structure of a batch with its neighbors."""

    atoms: Atoms
    system: System
    edges: Edges


Answer = Results | PetCalcError


class BatchCalculator(Protocol):
    """What a calculator must offer to compute several structures at once."""

    device: torch.device
    _self_check: SelfCheck

    def model_for(self, *structures: Atoms) -> EnergyModel:
        """The model that computes structures, chosen if need be."""

    @property
    def _selection(self) -> Any:
        """What the calculator computes with now."""

    def _select(self, selection: Any) -> None:
        """Compute with that selection from now on."""

    def _evaluate(self, model: EnergyModel, system: System, edges: Edges) -> Results:
        """Results by verified kernels, all of them finite numbers."""


def evaluate_in_batches(
    calculator: BatchCalculator,
    structures: Sequence[Atoms],
    limit: EdgeLimit,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Results of each of `structures`, or the error that it gives on its own.

    Parameters
    ----------
    calculator : BatchCalculator
        A calculator that chooses its potential ("auto") computes all structures that a potential
        covers before it takes the next one.
    structures : sequence of Atoms
    limit : EdgeLimit
        Of one batch; it learns from each.
    on_progress : callable, optional
        Called with the number of structures that are done and their total.
    """
    answers: dict[int, Answer] = {}

    def compute(chosen: list[tuple[int, Part]], waiting: bool) -> None:
        found = compute_together(calculator, [part for _, part in chosen], limit)
        limit.succeeded(sum(part.edges.n_edges for _, part in chosen), waiting)
        answers.update(zip((k for k, _ in chosen), found, strict=True))
        if on_progress is not None:
            on_progress(len(answers), len(structures))

    for selection, indices in groups(calculator, structures, answers):
        calculator._select(selection)
        chosen: list[tuple[int, Part]] = []
        total = 0
        for index in indices:
            try:
                part = prepare(calculator, structures[index])
            except PetCalcError as error:
                answers[index] = error
                continue
            if chosen and total + part.edges.n_edges > limit.edges:
                compute(chosen, waiting=True)
                chosen, total = [], 0
            chosen.append((index, part))
            total += part.edges.n_edges
        if chosen:
            compute(chosen, waiting=False)
    return [answers[k] for k in range(len(structures))]


def groups(
    calculator: BatchCalculator, structures: Sequence[Atoms], failures: dict[int, Any]
) -> list[tuple[Any, list[int]]]:
    """Structures that can share a batch, by what computes them.

    A structure that nothing computes is left out, and its error entered into `failures`.
    """
    found: list[tuple[Any, list[int]]] = []
    # the same elements go with the same potential, whatever came in between
    known: dict[frozenset[int], Any] = {}
    for index, atoms in enumerate(structures):
        elements = frozenset(atoms.numbers.tolist())
        try:
            if elements not in known:
                calculator.model_for(atoms)
                known[elements] = calculator._selection
        except PetCalcError as error:
            failures[index] = error
            continue
        for selection, indices in found:
            if selection == known[elements]:
                indices.append(index)
                break
        else:
            found.append((known[elements], [index]))
    return found


def prepare(calculator: BatchCalculator, atoms: Atoms) -> Part:
    """A structure that can be computed, with its neighbors."""
    model = calculator.model_for(atoms)
    system = system_from_atoms(atoms, calculator.device)
    edges = calculator._self_check.neighbor_list(system, model.cutoff)
    require_separation(system, edges)
    return Part(atoms, system, edges)


def compute_together(
    calculator: BatchCalculator, parts: Sequence[Part], limit: EdgeLimit
) -> list[Answer]:
    """Results of each part; a batch that does not fit, or that has a bad member, is divided."""
    try:
        system = System.concatenate([p.system for p in parts])
        edges = Edges.concatenate([p.edges for p in parts], [p.system.n_atoms for p in parts])
        model = calculator.model_for(*(p.atoms for p in parts))
        results = calculator._evaluate(model, system, edges)
    except (torch.OutOfMemoryError, PetCalcError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            limit.out_of_memory(sum(p.edges.n_edges for p in parts))
        if len(parts) == 1:
            return [error if isinstance(error, PetCalcError) else out_of_memory(parts[0])]
    else:
        return divided(results, [p.system.n_atoms for p in parts])
    # outside of the handler, which would keep the tensors of the failed call alive
    half = len(parts) // 2
    return [
        *compute_together(calculator, parts[:half], limit),
        *compute_together(calculator, parts[half:], limit),
    ]


def out_of_memory(part: Part) -> SimulationError:
    """The error of a structure that is too large by itself."""
    return SimulationError(
        f"the structure must fit into the memory of the device, but {part.system.n_atoms} atoms "
        f"with {part.edges.n_edges} neighbor pairs do not; use the CPU or a smaller structure"
    )


#: Which axis of a field counts systems or atoms, where it is not the first.
_MEMBERS_FIRST: Final = ("forces_ensemble", "stress_ensemble")
_PER_ATOM: Final = ("energies", "forces")


def divided(results: Results, sizes: Sequence[int]) -> list[Answer]:
    """The results of each system of a batch, which have `sizes` atoms."""
    values = tensors(results, sizes)
    if results.uncertainties is not None:
        for value, spread in zip(values, tensors(results.uncertainties, sizes), strict=True):
            value["uncertainties"] = Uncertainties(**spread)
    return [Results(**v) for v in values]


def tensors(source: object, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The tensors of a data class, cut into those of each system."""
    parts: list[dict[str, Any]] = [{} for _ in sizes]
    for name, value in vars(source).items():
        if not isinstance(value, Tensor):
            continue
        lengths = list(sizes) if name.startswith(_PER_ATOM) else [1] * len(sizes)
        cut = value.split(lengths, dim=1 if name in _MEMBERS_FIRST else 0)
        for part, tensor in zip(parts, cut, strict=True):
            part[name] = tensor
    return parts
