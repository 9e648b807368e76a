"""Relaxation of proposals, which may begin closer than the guards of a relaxation allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ase import Atoms

from pet_calc.crystals.generation.geometry_window import GeometryWindow
from pet_calc.workflows.guards import near_contact
from pet_calc.workflows.relax import Relaxation, RelaxConfig, relax_all, with_calculator

#: On the way atoms may be closer than the window of proposals allows by this factor.
SLACK: Final = 0.9
#: Below this share of the sum of their covalent radii no two atoms may ever be.
CLOSEST: Final = 0.1


def relax_proposals(
    proposals: Sequence[Atoms],
    calculator: Any,
    config: RelaxConfig,
    *,
    window: GeometryWindow | None = None,
    on_result: Callable[[int, Relaxation], None] | None = None,
) -> list[Relaxation]:
    """Relax proposals that a window let through; see `relax_all`.

    The guards of a relaxation are made for geometries that a potential has brought about. A
    proposal may have atoms closer than that, which the potential has yet to push apart: they count
    at the end. What is still below ``config.guards.contact`` then is "stopped".

    Parameters
    ----------
    proposals : sequence of Atoms
    calculator : ase calculator
    config : RelaxConfig
    window : GeometryWindow, optional
        That the proposals have passed.
    on_result : callable, optional
        Told index and outcome as soon as it is known.
    """
    window = window or GeometryWindow()
    contact = min(config.guards.contact, max(CLOSEST, SLACK * window.contact))
    lenient = replace(config, guards=replace(config.guards, contact=contact))

    found: dict[int, Relaxation] = {}

    def keep(index: int, outcome: Relaxation) -> None:
        found[index] = judged(outcome, config)
        if on_result is not None:
            on_result(index, found[index])

    relax_all(with_calculator(proposals, calculator), lenient, on_result=keep)
    return [found[index] for index in range(len(proposals))]


def judged(outcome: Relaxation, config: RelaxConfig) -> Relaxation:
    """The outcome, or that it was stopped, if atoms nearly touch by the guards of `config`."""
    if outcome.atoms is None or outcome.status not in ("converged", "steps", "time"):
        return outcome
    found = near_contact(outcome.atoms, config.guards.contact)
    if found is None:
        return outcome
    return replace(outcome, status="stopped", reason=f"still too close at the end: {found.cause}")
