"""Relaxation of many structures in one call of the model, by FIRE.

Every structure moves as it would on its own. It leaves the batch when it is done and another one
takes its place, so that a slow one does not hold up the rest.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.calculators.batches import EdgeLimit, Part, compute_together, groups, prepare
from pet_calc.errors import InvalidStructureError, PetCalcError
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import Results
from pet_calc.neighbors import neighbor_list
from pet_calc.units import GPA
from pet_calc.workflows.guards import Violation
from pet_calc.workflows.relax.config import RelaxConfig
from pet_calc.workflows.relax.fire import FireState, fire_step, generalized_forces, largest_row
from pet_calc.workflows.relax.result import (
    Relaxation,
    Status,
    failed,
    frozen_copy,
    geometry_violation,
    result_violation,
)
from pet_calc.workflows.relax.single import prepared

#: Constraints that act linearly on forces, so that a path with projected forces obeys them.
CONSTRAINTS: Final = ("FixAtoms", "FixSymmetry")

OnResult = Callable[[int, Relaxation], None]
OnStep = Callable[[int, float], None]


@dataclass(eq=False)
class Member:
    """A structure in the batch: its geometry now, and its last good one."""

    index: int
    atoms: Atoms
    start: Atoms
    began: float
    volume: float
    good: Atoms | None = None


def relax_batched(
    structures: Sequence[Atoms],
    calculator: ModelCalculator,
    config: RelaxConfig | None = None,
    *,
    on_result: OnResult | None = None,
    on_step: OnStep | None = None,
) -> list[Relaxation]:
    """Relax many structures, as many at a time as ``config.batch_edges`` allows.

    Parameters
    ----------
    structures : sequence of Atoms
        Not changed; their own calculators are not used.
    calculator : ModelCalculator
        Computes all of them, by the models that it has for them.
    config : RelaxConfig, optional
        With the optimizer "fire". What has not begun after its `total_seconds` is "not started".
    on_result : callable, optional
        Called with the index and the `Relaxation` of each structure as it is done.
    on_step : callable, optional
        Called with the number of structures in the batch and the largest force in eV/Å.

    Returns
    -------
    list of Relaxation
        In the order of `structures`. An error of one structure is its own outcome, "failed".
    """
    config = config or RelaxConfig()
    if config.optimizer != "fire":
        raise ValueError(f"a batch is relaxed by FIRE, got `optimizer`={config.optimizer!r}")
    outcomes: dict[int, Relaxation] = {}

    def done(index: int, outcome: Relaxation) -> None:
        outcomes[index] = outcome
        if on_result is not None:
            on_result(index, outcome)

    limit = EdgeLimit.for_device(calculator.device, config.batch_edges)
    end = time.monotonic() + (config.total_seconds or math.inf)
    failures: dict[int, PetCalcError] = {}
    found = groups(calculator, structures, failures)
    for index, error in failures.items():
        done(index, failed(structures[index], error))
    for selection, indices in found:
        calculator._select(selection)
        batch = Batch(calculator, config, limit, end)
        batch.run(deque((i, structures[i]) for i in indices), done, on_step)
    return [outcomes[i] for i in range(len(structures))]


class Batch:
    """The structures that a calculator computes together, step by step."""

    def __init__(
        self, calculator: ModelCalculator, config: RelaxConfig, limit: EdgeLimit, deadline: float
    ) -> None:
        self.calculator = calculator
        self.name = calculator.name
        self.device = calculator.device
        self.config = config
        self.limit = limit
        self.deadline = deadline
        self.members: list[Member] = []
        self.state: FireState | None = None

    def run(self, queue: deque[tuple[int, Atoms]], done: OnResult, on_step: OnStep | None) -> None:
        """Relax all of `queue`."""
        while queue or self.members:
            self.admit(queue, done)
            if not self.members:
                break
            assert self.state is not None
            worst, forces = self.advance(self.state, queue, done)
            if on_step is not None and self.members:
                on_step(len(self.members), worst)
            if self.members:
                self.state = fire_step(self.state, *forces)
        for index, atoms in queue:
            done(index, Relaxation("not started", "out of time", None, atoms))

    def admit(self, queue: deque[tuple[int, Atoms]], done: OnResult) -> None:
        """Let structures in while their edges fit."""
        edges = sum(self.count(m.atoms) for m in self.members) if queue else 0
        while queue and time.monotonic() < self.deadline:
            index, atoms = queue[0]
            try:
                work = prepared(atoms, self.config)
                volume = work.get_volume() if work.pbc.all() else 0.0
                found = geometry_violation(work, volume, self.config)
                if found is not None:
                    raise InvalidStructureError(found.cause)
                foreign = [c.todict()["name"] for c in work.constraints]
                if set(foreign) - set(CONSTRAINTS):
                    raise ValueError(f"a batch keeps {', '.join(CONSTRAINTS)}, not {foreign}")
                edges += self.count(work)
            except (PetCalcError, ValueError) as error:
                queue.popleft()
                done(index, failed(atoms, error))
                continue
            if self.members and edges > self.limit.edges:
                break
            queue.popleft()
            member = Member(index, work, atoms.copy(), time.monotonic(), volume)
            system = system_from_atoms(work, self.device)
            state = FireState.at_rest(system.positions, system.cell[0])
            self.members.append(member)
            self.state = state if self.state is None else FireState.concatenate(self.state, state)

    def count(self, atoms: Atoms) -> int:
        """Directed edges of a structure."""
        system = system_from_atoms(atoms, self.device)
        return neighbor_list(system, self.calculator.model_for(atoms).cutoff).n_edges

    def advance(
        self, state: FireState, queue: deque[tuple[int, Atoms]], done: OnResult
    ) -> tuple[float, tuple[torch.Tensor, torch.Tensor]]:
        """Compute the batch, let go what is done, and return the rest's forces.

        Returns
        -------
        float
            Largest force in eV/Å of the members before those that are done leave.
        tuple of Tensor
            Generalized forces of those that stay, whose state is in `self.state`.
        """
        problems = self.place(state)
        answers = self.ask(problems, waiting=bool(queue))
        forces = torch.zeros_like(state.x)
        stress = torch.zeros(state.n_systems, 6, dtype=forces.dtype, device=self.device)
        begin = 0
        for k, member in enumerate(self.members):
            end = begin + len(member.atoms)
            answer = answers[k]
            if answer is not None:
                found = result_violation(member.atoms, *answer)
                if found is None:
                    member.good = frozen_copy(member.atoms, *answer)
                    f, s = constrained(member.atoms, answer[1], answer[2])
                    forces[begin:end] = torch.from_numpy(f).to(forces)
                    if s is not None:
                        stress[k] = torch.from_numpy(s).to(stress)
                else:
                    problems[k] = found
            begin = end
        config = self.config
        on_x, on_y = generalized_forces(state, forces, stress, config.pressure * GPA, config.cell)
        rows = largest_row(state, on_x, on_y).tolist()
        keep = []
        for k, (member, steps) in enumerate(zip(self.members, state.steps.tolist(), strict=True)):
            outcome = self.outcome(member, steps, rows[k], problems[k])
            keep.append(outcome is None)
            if outcome is not None:
                done(member.index, outcome)
        stays = torch.tensor(keep, device=self.device)
        atoms = stays[state.index]
        self.members = [m for m, k in zip(self.members, keep, strict=True) if k]
        self.state = state.select(stays) if self.members else None
        return max(rows), (on_x[atoms], on_y[stays])

    def place(self, state: FireState) -> list[Violation | None]:
        """Move the members' atoms to where `state` is, and look at their geometries."""
        positions, cells = (t.cpu().numpy() for t in state.geometry())
        begin, problems = 0, []
        for member, cell, steps in zip(self.members, cells, state.steps.tolist(), strict=True):
            end = begin + len(member.atoms)
            if steps > 0:
                if self.config.cell != "fixed":
                    member.atoms.cell[:] = cell
                member.atoms.positions[:] = positions[begin:end]
            problems.append(geometry_violation(member.atoms, member.volume, self.config))
            begin = end
        return problems

    def ask(self, problems: list[Violation | None], *, waiting: bool) -> list[Any]:
        """Energy, forces and stress of each member without a problem; None for the others.

        What cannot be computed is entered into `problems`.
        """
        parts: list[tuple[int, Part]] = []
        for k, member in enumerate(self.members):
            if problems[k] is None:
                try:
                    parts.append((k, prepare(self.calculator, member.atoms)))
                except PetCalcError as error:
                    problems[k] = Violation(str(error))
        answers: list[Any] = [None] * len(self.members)
        edges = [p.edges.n_edges for _, p in parts]
        if not parts:
            return answers
        for chunk in self.limit.chunks(edges):
            together = parts[chunk]
            found = compute_together(self.calculator, [p for _, p in together], self.limit)
            for (k, part), answer in zip(together, found, strict=True):
                if isinstance(answer, PetCalcError):
                    problems[k] = Violation(str(answer))
                else:
                    answers[k] = arrays(answer, periodic=bool(part.system.pbc.all()))
        self.limit.succeeded(sum(edges), waiting)
        return answers

    def outcome(
        self, member: Member, steps: int, row: float, problem: Violation | None
    ) -> Relaxation | None:
        """Whether a member is done, and how."""
        now = time.monotonic()
        cap = self.config.seconds
        status: Status
        if problem is not None:
            if member.good is None:
                return failed(member.start, f"SimulationError: {problem.cause}", now - member.began)
            # the step that led to it is not one that was kept
            status, reason, steps = "stopped", f"at step {steps}: {problem.cause}", steps - 1
        elif row < self.config.fmax:
            status, reason = "converged", ""
        elif steps >= self.config.steps:
            status, reason = "steps", f"not converged after {self.config.steps} steps"
        elif now > self.deadline or (cap is not None and now > member.began + cap):
            status, reason = "time", f"out of time after {steps} steps"
        else:
            return None
        seconds = now - member.began
        return Relaxation(status, reason, member.good, member.start, steps, seconds, self.name)


def arrays(results: Results, *, periodic: bool) -> tuple[float, Any, Any]:
    """Energy, forces and stress (None without periodicity) of one structure."""
    assert results.forces is not None
    assert results.stress is not None
    stress = results.stress[0].cpu().numpy() if periodic else None
    return float(results.energy[0]), results.forces.cpu().numpy(), stress


def constrained(
    atoms: Atoms, forces: NDArray[np.float64], stress: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Forces and stress after the constraints of `atoms`."""
    forces = np.array(forces)
    stress = None if stress is None else np.array(stress)
    for constraint in atoms.constraints:
        constraint.adjust_forces(atoms, forces)
        if stress is not None and hasattr(constraint, "adjust_stress"):
            constraint.adjust_stress(atoms, stress)
    return forces, stress
