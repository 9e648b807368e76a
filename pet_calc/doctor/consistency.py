"""Whether the answer depends on the question alone: smoothness, history, precision, company."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.doctor.evaluation import (
    bare,
    displaced,
    evaluate,
    force_limit,
    is_double,
    largest,
    strained,
)
from pet_calc.doctor.finding import Finding, Limit, Verdict, skipped
from pet_calc.doctor.symmetry import compared, differences, limits

Array = NDArray[np.float64]


def smoothness(
    atoms: Atoms,
    calculator: Any,
    *,
    rng: np.random.Generator,
    points: int = 17,
    length: float = 0.02,
) -> Finding:
    r"""Largest jump of the energy on a line along which many pairs cross the cutoff.

    Between neighbouring points the energy must change by the work of the forces. The residual of
    the trapezoidal rule is :math:`r = E_{k+1} - E_k + \tfrac12 (F_k + F_{k+1}) \cdot \Delta x`, of
    order :math:`\Delta x^3` where the energy is smooth. Taken over two intervals at once it is four
    times the sum over both for a smooth energy, and equal to it for a jump, so that

    .. math:: J = \tfrac13 \left| 4 (r_k + r_{k+1}) - r_{k,k+2} \right|

    leaves of a smooth energy only terms of fifth order.

    Parameters
    ----------
    atoms : Atoms
    calculator : ase calculator
    rng : numpy.random.Generator
        Draws the direction.
    points : int
        On the line; odd.
    length : float
        Of the line in Å, root mean square over coordinates.
    """
    direction = rng.standard_normal(atoms.positions.shape)
    energies, slopes = [], []
    for t in np.linspace(0.0, length, points):
        moved = bare(atoms)
        moved.positions += t * direction
        point = evaluate(calculator, moved)
        energies.append(point.energy)
        slopes.append(-float((point.forces * direction).sum()))
    e, s = np.array(energies), np.array(slopes)
    step = length / (points - 1)
    fine = np.diff(e) - 0.5 * step * (s[1:] + s[:-1])
    coarse = (e[2::2] - e[:-2:2]) - step * (s[2::2] + s[:-2:2])
    jumps = np.abs(4.0 * (fine[::2] + fine[1::2]) - coarse) / 3.0
    jump = float(jumps.max())
    # rounding of the sum over atoms in single precision shows here
    limit = Limit(1e-5 if is_double(calculator) else 1e-4 + 1e-6 * len(atoms), 1e-2, "eV")
    return Finding(
        "smoothness of the energy",
        limit.judge(jump),
        f"largest jump {jump:.1e} eV over {points - 1} steps of {step:.1e} Å",
        str(limit),
        {"jump": jump, "step": step, "points": points},
    )


def history_error(atoms: Atoms, calculator: Any, *, rng: np.random.Generator) -> Finding:
    """Whether earlier structures, or arrays already handed out, change an answer.

    Structures that differ in positions, cell, species and number of atoms are asked about in turn,
    forwards and backwards, on one ``Atoms`` where programs change it in place.
    """
    check = "independence of history"
    inputs = [displaced(atoms, rng, 0.02), displaced(atoms, rng, 0.05)]
    if atoms.pbc.any():
        inputs.append(strained(inputs[0], np.eye(3) * 0.01))
    if len(np.unique(atoms.numbers)) > 1:
        swapped = inputs[1].copy()
        # neighbours in the list of another element
        k = int(np.flatnonzero(np.diff(swapped.numbers))[0])
        swapped.numbers[[k, k + 1]] = swapped.numbers[[k + 1, k]]
        inputs.append(swapped)
    if len(atoms) > 1:
        inputs.append(inputs[0][:-1])
    work = bare(inputs[0])
    work.calc = calculator
    first = work.get_forces()
    copy = first.copy()
    work.positions = inputs[1].positions
    in_place = (float(work.get_potential_energy()), work.get_forces().copy())
    if not np.array_equal(first, copy):
        return Finding(
            check,
            Verdict.FAIL,
            "an array of forces that was handed out changed with the next calculation",
            "results are not changed later",
        )
    # the same question in place and anew must agree in ASE's energy; `evaluate` may read another
    anew = bare(inputs[1])
    anew.calc = calculator
    evaluate(calculator, inputs[0])
    change = abs(float(anew.get_potential_energy()) - in_place[0]) / len(atoms)
    forces = largest(anew.get_forces() - in_place[1])
    forwards = [evaluate(calculator, a) for a in inputs]
    backwards = [evaluate(calculator, a) for a in inputs[::-1]][::-1]
    for before, after in zip(forwards, backwards, strict=True):
        if before.forces.shape != after.forces.shape:
            change = float("nan")
            continue
        one, two = differences(before, after, len(before.forces))
        change, forces = max(change, one), max(forces, two)
    same = [k for k in range(1, len(inputs)) if identical(forwards[0], forwards[k])]
    if same:
        return Finding(
            check,
            Verdict.FAIL,
            "different structures get results that are identical to the last bit",
            "a new structure is calculated anew",
            {"structures": same},
        )
    return compared(check, change, forces, *limits(calculator))


def identical(a: Any, b: Any) -> bool:
    """Whether two results agree to the last bit, and are not zero."""
    return bool(
        a.energy == b.energy and np.array_equal(a.forces, b.forces) and np.any(a.forces != 0.0)
    )


def precision_error(
    atoms: Atoms, calculator: Any, twin: Any | None, *, rng: np.random.Generator
) -> Finding:
    """Single against double precision of the same potential.

    Parameters
    ----------
    atoms : Atoms
    calculator : ase calculator
    twin : ase calculator or None
        The same potential in the other precision.
    rng : numpy.random.Generator
    """
    check = "float32 against float64"
    if twin is None:
        return skipped(check, f"{type(calculator).__name__} was given in one precision only")
    start = displaced(atoms, rng, 0.02)
    change = differences(evaluate(calculator, start), evaluate(twin, start), len(atoms))
    return compared(check, *change, Limit(1e-4, 1e-3, "eV/atom"), Limit(1e-3, 1e-2, "eV/Å"))


def batch_error(atoms: Atoms, calculator: Any, *, rng: np.random.Generator) -> Finding:
    """Structures calculated together against each by itself."""
    check = "batch against single"
    if not isinstance(calculator, ModelCalculator):
        return skipped(check, f"{type(calculator).__name__} takes one structure at a time")
    from pet_calc.geometry import System
    from pet_calc.io.atoms import system_from_atoms
    from pet_calc.models import evaluate as evaluate_model
    from pet_calc.neighbors import neighbor_list

    members = [displaced(atoms, rng, 0.05), displaced(atoms, rng, 0.02)]
    if len(atoms) > 1:
        members.insert(0, members[0][: len(atoms) // 2])
    systems = [system_from_atoms(a, calculator.device) for a in members]
    model = calculator.model_for(systems[-1])
    together = System.concatenate(systems)
    results = evaluate_model(model, together, neighbor_list(together, model.cutoff))
    assert results.forces is not None
    change, forces, begin = 0.0, 0.0, 0
    for k, system in enumerate(systems):
        single = evaluate_model(model, system, neighbor_list(system, model.cutoff))
        assert single.forces is not None
        end = begin + system.n_atoms
        energy = abs(float(results.energy[k] - single.energy[0])) / system.n_atoms
        difference = (results.forces[begin:end] - single.forces).cpu().numpy()
        change, forces, begin = max(change, energy), max(forces, largest(difference)), end
    energy_limit, _ = limits(calculator)
    return compared(
        check,
        change,
        forces,
        energy_limit,
        force_limit(calculator, double=1e-8, single=1e-4, bad=1e-3),
    )
