"""Relaxation of many structures, in batches where the calculator allows it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import InvalidStructureError, PetCalcError, UnsupportedElementError
from pet_calc.workflows.guards import Guard, require_covered
from pet_calc.workflows.progress import OnProgress, Progress
from pet_calc.workflows.relax.batched import CONSTRAINTS, OnResult, OnStep, relax_batched
from pet_calc.workflows.relax.config import RelaxConfig
from pet_calc.workflows.relax.result import Relaxation, failed, geometry_violation
from pet_calc.workflows.relax.single import prepared, relax, step_progress


def with_calculator(structures: Iterable[Atoms], calculator: Any) -> list[Atoms]:
    """Copies of structures that share a calculator."""
    copies = []
    for atoms in structures:
        copy = atoms.copy()
        copy.calc = calculator
        copies.append(copy)
    return copies


def why_not_batched(structures: Sequence[Atoms], config: RelaxConfig) -> str | None:
    """Why structures are relaxed one by one; None if one call of the model can take many."""
    if len(structures) < 2:
        return "there is only one structure"
    calculator = structures[0].calc
    if any(atoms.calc is not calculator for atoms in structures):
        return "the structures have different calculators"
    if not isinstance(calculator, ModelCalculator):
        return f"{type(calculator).__name__} computes one structure at a time"
    if config.optimizer != "fire":
        return f"a batch is relaxed by FIRE, not by {config.optimizer.upper()}"
    kinds = {c.todict()["name"] for atoms in structures for c in atoms.constraints}
    if other := sorted(kinds - set(CONSTRAINTS)):
        return f"a batch does not keep {', '.join(other)}"
    if config.guards.energy_uncertainty or config.guards.forces_uncertainty:
        return "uncertainties are looked at one structure at a time"
    return None


def settle_model(
    structures: Sequence[Atoms], calculator: Any, elements: Iterable[str] = ()
) -> None:
    """Let an "auto" calculator choose one potential for all structures, where one suits them.

    Otherwise the choice would depend on the order of the structures.

    Parameters
    ----------
    structures : sequence of Atoms
    calculator : Calculator
    elements : iterable of str
        Whose pure phases will be computed too, as references.
    """
    if not isinstance(calculator, ModelCalculator):
        return
    systems = {frozenset(atoms.numbers.tolist()) for atoms in structures}
    systems |= {frozenset([atomic_numbers[e]]) for e in elements}
    if not systems:
        return
    # cells, as a potential for crystals would warn of molecules
    examples = [Atoms(sorted(numbers), cell=np.eye(3), pbc=True) for numbers in systems]
    with contextlib.suppress(UnsupportedElementError):
        # each structure is asked about again, and named if no potential covers it
        calculator.model_for(*sorted(examples, key=lambda a: a.numbers.tolist()))


def starting_problem(atoms: Atoms, config: RelaxConfig) -> Exception | None:
    """Why a structure with a calculator cannot be relaxed at all, found without computing it."""
    try:
        work = prepared(atoms, config)
        require_covered(work)
        volume = work.get_volume() if work.pbc.all() else 0.0
        found = geometry_violation(work, volume, config)
        if found is not None:
            raise InvalidStructureError(found.cause)
        Guard(config.guards).require_uncertainties(work)
    except PetCalcError as error:
        return error
    return None


def relax_all(
    structures: Sequence[Atoms],
    config: RelaxConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_result: OnResult | None = None,
) -> list[Relaxation]:
    """Relax many structures; an error of one is its own outcome and does not touch the others.

    Parameters
    ----------
    structures : sequence of Atoms
        With calculators, not changed. Those that share a calculator of this package are computed
        together, see `with_calculator`.
    config : RelaxConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of each step: how many structures are done, and the largest
        force of those that move at present (``fmax_eV_per_A``).
    on_result : callable, optional
        Called with the index and the `Relaxation` of each structure as it is done.

    Returns
    -------
    list of Relaxation
        In the order of `structures`.

    Raises
    ------
    ValueError
        If `config.batch` asks for a batch where it is not possible, or a structure has no
        calculator.
    """
    config = config or RelaxConfig()
    if any(atoms.calc is None for atoms in structures):
        raise ValueError("every structure must carry a calculator; set atoms.calc")
    objection = why_not_batched(structures, config)
    if config.batch and objection is not None and len(structures) > 1:
        raise ValueError(f"these structures cannot be relaxed in a batch: {objection}")
    counter = Counter(len(structures), config, on_progress, on_result)
    if objection is None and config.batch is not False:
        calculator = cast(ModelCalculator, structures[0].calc)
        relax_batched(
            structures, calculator, config, on_result=counter.result, on_step=counter.step
        )
    else:
        deadline = time.monotonic() + (config.total_seconds or math.inf)
        for index, atoms in enumerate(structures):
            counter.result(index, relax_one(atoms, config, deadline, counter.step))
    return [counter.outcomes[k] for k in range(len(structures))]


class Counter:
    """Outcomes of many structures, and what is reported of them."""

    def __init__(
        self,
        total: int,
        config: RelaxConfig,
        on_progress: OnProgress | None,
        on_result: OnResult | None,
    ) -> None:
        self.total = total
        self.moves = config.steps > 0
        self.on_progress = on_progress
        self.on_result = on_result
        self.outcomes: dict[int, Relaxation] = {}

    def step(self, together: int, largest: float) -> None:
        """Some structures have made a step."""
        if self.on_progress is not None:
            self.on_progress(step_progress(len(self.outcomes), self.total, largest, together))

    def result(self, index: int, outcome: Relaxation) -> None:
        """A structure is done."""
        self.outcomes[index] = outcome
        if self.on_result is not None:
            self.on_result(index, outcome)
        if self.on_progress is not None:
            left = sum(not o.converged for o in self.outcomes.values())
            # of single points none can converge
            text = f"{left} not converged" if self.moves else ""
            self.on_progress(Progress("relaxation", len(self.outcomes), self.total, text))


def relax_one(atoms: Atoms, config: RelaxConfig, deadline: float, on_step: OnStep) -> Relaxation:
    """One structure, whose errors become its outcome."""
    began = time.monotonic()
    if began > deadline:
        return Relaxation("not started", "out of time", None, atoms)
    left = None if deadline == math.inf else deadline - began
    try:
        return relax(
            atoms,
            replace(config, total_seconds=left),
            on_progress=lambda progress: on_step(1, progress.values["fmax_eV_per_A"]),
        )
    except Exception as error:  # calculators of any package fail in ways of their own
        return failed(atoms, error, time.monotonic() - began)
