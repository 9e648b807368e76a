"""Hulls whose energies all come from one calculator."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states

from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.elements import CRYSTALS, elemental_crystal
from pet_calc.crystals.generation.hull import Hull, Phase
from pet_calc.errors import PetCalcError
from pet_calc.io.cache import cache_folder
from pet_calc.io.runs.provenance import calculator_record
from pet_calc.workflows.relax import Relaxation, RelaxConfig, relax_all, with_calculator
from pet_calc.workflows.relax.many import settle_model

_log = logging.getLogger("pet_calc")

OnProgress = Callable[[int, int], None]

#: Edge in Å of the box of a diatomic reference.
BOX = 12.0


def reference_structure(symbol: str) -> Atoms:
    """An element in ASE's reference state: its crystal, or its molecule in a box.

    Where ASE knows the lattice alone, the atoms are those of
    `pet_calc.crystals.generation.elements`.

    Raises
    ------
    ValueError
        If there is no reference state that can be built.
    """
    if symbol in CRYSTALS:
        return elemental_crystal(symbol)
    state = reference_states[atomic_numbers[symbol]]
    if state is None:
        raise ValueError(f"ASE has no reference state of {symbol}")
    if state["symmetry"] == "diatom":
        half = 0.5 * float(str(state["d"]))
        return Atoms(
            [symbol] * 2, positions=[[-half, 0, 0], [half, 0, 0]], cell=[BOX] * 3, pbc=True
        )
    if state["symmetry"] == "atom":
        return Atoms([symbol], cell=[BOX] * 3, pbc=True)
    try:
        return bulk(symbol)
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        raise ValueError(f"ASE does not build the reference state of {symbol}: {error}") from error


def takes_the_zero(symbol: str, calculator: Any) -> bool:
    """Whether an element's energy is zero by the definition of a potential's energies.

    So it is of a potential for crystals alone whose energies count from the elements, for elements
    that are no crystal in their reference state, or none that ASE builds: such a potential has
    nothing of their molecules, which it may misjudge by an eV per atom.
    """
    potential = getattr(calculator, "potential", None)
    if potential is None or not (potential.formation_energies and potential.crystals_only):
        return False
    try:
        reference_structure(symbol)
    except ValueError:
        return True
    state = reference_states[atomic_numbers[symbol]]
    is_gas = state is not None and state["symmetry"] in ("diatom", "atom")
    return is_gas and symbol not in CRYSTALS


def identity(calculator: Any) -> dict[str, Any]:
    """What tells energies of one calculator from those of another."""
    record = calculator_record(calculator)
    return {k: v for k, v in record.items() if k not in ("device", "dtype")}


def hull_id(origin: dict[str, Any]) -> str:
    """Twelve hexadecimal digits of a calculator's `identity`."""
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:12]


def cache_path(calculator: Any) -> Path | None:
    """Where elemental references are kept; None if the calculator tells no SHA-256."""
    origin = identity(calculator)
    if "sha256" not in origin:
        return None
    return cache_folder() / "hulls" / f"{hull_id(origin)}.json"


def elemental_hull(
    elements: Iterable[str],
    calculator: Any,
    config: RelaxConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[Hull, dict[str, str]]:
    """Relaxed reference states of the elements, or the zero of the energies (`takes_the_zero`).

    Known ones are taken from the cache if the calculator tells the hash of its weights.

    Returns
    -------
    Hull
    dict
        Element to the reason why it has no reference.
    """
    wanted = list(dict.fromkeys(elements))
    path = cache_path(calculator)
    origin = identity(calculator)
    hull = Hull.load(path) if path is not None and path.is_file() else Hull((), origin)
    zeros = [s for s in wanted if takes_the_zero(s, calculator)]
    phases_at_zero = [
        Phase(Composition.of(s), 0.0, f"{s} (zero of the potential's energies)") for s in zeros
    ]
    hull = Hull(tuple(p for p in hull.phases if p.composition.elements[0] not in zeros), origin)
    known = {p.composition.elements[0] for p in hull.phases} | set(zeros)
    structures: dict[str, Atoms] = {}
    reasons: dict[str, str] = {}
    for symbol in wanted:
        if symbol in known:
            continue
        try:
            structures[symbol] = reference_structure(symbol)
        except ValueError as error:
            reasons[symbol] = str(error)
    phases, failed = relaxed_phases(
        list(structures.values()),
        calculator,
        config,
        [f"{s} (ASE)" for s in structures],
        on_progress=on_progress,
    )
    for k, reason in failed.items():
        reasons[list(structures)[k]] = reason
    hull = hull.with_phases(phases)
    if path is not None and phases:
        hull.save(path)
    return hull.with_phases(phases_at_zero), reasons


def relaxed_phases(
    structures: Sequence[Atoms],
    calculator: Any,
    config: RelaxConfig | None = None,
    names: Sequence[str] | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[list[Phase], dict[int, str]]:
    """Phases of relaxed structures, and the reasons of those that have no energy, by index."""
    config = config or RelaxConfig(cell="free", fmax=0.02, steps=300)
    count = itertools.count(1)

    def told(index: int, outcome: Relaxation) -> None:
        if on_progress is not None:
            on_progress(next(count), len(structures))

    if structures and on_progress is not None:
        on_progress(0, len(structures))
    outcomes = (
        relax_all(with_calculator(structures, calculator), config, on_result=told)
        if structures
        else []
    )
    phases: list[Phase] = []
    reasons: dict[int, str] = {}
    for k, outcome in enumerate(outcomes):
        # a molecule in a box has no cell to converge; what was reached is its energy
        if outcome.atoms is None or outcome.status == "stopped":
            reasons[k] = outcome.reason or outcome.status
            continue
        composition = Composition.from_numbers(np.asarray(structures[k].numbers))
        name = names[k] if names is not None else f"structure {k}"
        try:
            phases.append(Phase(composition, outcome.energy / composition.n_atoms, name))
        except (PetCalcError, ValueError) as error:
            reasons[k] = str(error)
    for k, reason in reasons.items():
        _log.warning("no reference energy of %s: %s", names[k] if names else k, reason)
    return phases, reasons


def competitors(crystals: Iterable[Atoms], compositions: Iterable[Composition]) -> list[Atoms]:
    """The crystals that compete with some of the compositions: no element but theirs."""
    systems = {frozenset(z for z, _ in c.counts) for c in compositions}
    found = []
    for atoms in crystals:
        own = frozenset(atoms.numbers.tolist())
        if any(own <= system for system in systems):
            found.append(atoms)
    return found


def build_hull(
    structures: Sequence[Atoms],
    calculator: Any,
    config: RelaxConfig | None = None,
    names: Sequence[str] | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[Hull, dict[str, str]]:
    """Hull of a user's competitors and of the elements in them, all with one calculator.

    `on_progress` is told how many of how many structures are relaxed, first of the elements.
    """
    symbols = sorted({s for atoms in structures for s in atoms.get_chemical_symbols()})
    settle_model(structures, calculator, symbols)
    elements, reasons = elemental_hull(symbols, calculator, config, on_progress=on_progress)
    phases, failed = relaxed_phases(structures, calculator, config, names, on_progress=on_progress)
    for k, reason in failed.items():
        reasons[names[k] if names else f"structure {k}"] = reason
    return elements.with_phases(phases), reasons
