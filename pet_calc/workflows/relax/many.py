"""Relaxation of many structures, in batches where the calculator allows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from ase import Atoms
from ase.data import atomic_numbers

from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import InvalidStructureError, PetCalcError, UnsupportedElementError
from pet_calc.geometry import System
from pet_calc.workflows.guards import Guard, require_covered
from pet_calc.workflows.relax.batched import CONSTRAINTS, OnResult, OnStep, relax_batched
from pet_calc.workflows.relax.config import RelaxConfig
from pet_calc.workflows.relax.result import Relaxation, failed, geometry_violation
from pet_calc.workflows.relax.single import prepared, relax


def why_not_batched(
    structures: Sequence[Atoms], calculator: Any, config: RelaxConfig
) -> str | None:
    """Why structures are relaxed one by one; None if one call of the model can take many."""
    if not isinstance(calculator, ModelCalculator):
        return f"{type(calculator).__name__} computes one structure at a time"
    if not calculator.one_model:
        return f"{calculator.name} is evaluated in the orientations of one structure"
    if config.optimizer != "fire":
        return f"a batch is relaxed by FIRE, not by {config.optimizer.upper()}"
    kinds = {c.todict()["name"] for atoms in structures for c in atoms.constraints}
    if other := sorted(kinds - set(CONSTRAINTS)):
        return f"a batch does not keep {', '.join(other)}"
    if config.guards.energy_uncertainty or config.guards.forces_uncertainty:
        return "uncertainties are looked at one structure at a time"
    if len(structures) < 2:
        return "there is only one structure"
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
    examples = [
        System.single(
            positions=torch.zeros(len(numbers), 3, dtype=torch.float64),
            numbers=torch.tensor(sorted(numbers), dtype=torch.int64),
            # what has no cell would be warned of
            cell=torch.eye(3, dtype=torch.float64),
            pbc=(True, True, True),
        )
        for numbers in sorted(systems, key=sorted)
    ]
    with contextlib.suppress(UnsupportedElementError):
        # each structure is asked about again, and named if no potential covers it
        calculator.model_for(System.concatenate(examples).to(calculator.device))


def starting_problem(atoms: Atoms, calculator: Any, config: RelaxConfig) -> Exception | None:
    """Why a structure cannot be relaxed at all, found without computing it."""
    try:
        work = prepared(atoms, config)
        work.calc = calculator
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
    calculator: Any,
    config: RelaxConfig | None = None,
    *,
    batched: bool | None = None,
    max_edges: int | None = None,
    deadline: float | None = None,
    on_result: OnResult | None = None,
    on_step: OnStep | None = None,
) -> list[Relaxation]:
    """Relax many structures; an error of one is its own outcome and does not touch the others.

    Parameters
    ----------
    structures : sequence of Atoms
        Not changed.
    calculator : ase calculator
        Used for all of them.
    config : RelaxConfig, optional
    batched : bool, optional
        Many structures in one call of the model; by default wherever `why_not_batched` has no
        objection.
    max_edges, deadline, on_result, on_step
        See `relax_batched`. One by one, `on_step` is told 1 structure.

    Returns
    -------
    list of Relaxation
        In the order of `structures`.

    Raises
    ------
    ValueError
        If `batched` is asked for where it is not possible.
    """
    config = config or RelaxConfig()
    objection = why_not_batched(structures, calculator, config)
    if batched and objection is not None and len(structures) > 1:
        raise ValueError(f"these structures cannot be relaxed in a batch: {objection}")
    if batched or (batched is None and objection is None):
        return relax_batched(
            structures,
            cast(ModelCalculator, calculator),
            config,
            max_edges=max_edges,
            deadline=deadline,
            on_result=on_result,
            on_step=on_step,
        )
    outcomes = []
    for index, atoms in enumerate(structures):
        outcome = relax_one(atoms, calculator, config, deadline, on_step)
        outcomes.append(outcome)
        if on_result is not None:
            on_result(index, outcome)
    return outcomes


def relax_one(
    atoms: Atoms,
    calculator: Any,
    config: RelaxConfig,
    deadline: float | None,
    on_step: OnStep | None,
) -> Relaxation:
    """One structure, whose errors become its outcome."""
    began = time.monotonic()
    if deadline is not None and began > deadline:
        return Relaxation("not started", "out of time", None, atoms)
    work = atoms.copy()
    work.calc = calculator
    try:
        return relax(
            work,
            config,
            deadline=deadline,
            on_step=None if on_step is None else lambda _, force: on_step(1, force),
        )
    except Exception as error:  # calculators of any package fail in ways of their own
        return failed(atoms, error, time.monotonic() - began)
