"""Whether the answer depends on the question alone: smoothness, history, precision, company."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.calculators.base import ModelCalculator
from pet_calc.doctor.evaluation import (
    Noise,
    bare,
    displaced,
    evaluate,
    largest,
    measure_noise,
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
    noise: Noise | None = None,
) -> Finding:
    r"""Largest jump of the energy on a line along which many pairs cross the cutoff.

    Between neighboring points the energy must change by the work of the forces. The residual of
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
    noise = noise or measure_noise(atoms, calculator, rng=rng)
    good = noise.bounded(10.0 * noise.energy, 1e-5, 1e-4 + 1e-6 * len(atoms))
    limit = Limit(good, 1e-2, "eV")
    return Finding(
        "smoothness of the energy",
        limit.judge(jump),
        f"largest jump {jump:.1e} eV over {points - 1} steps of {step:.1e} Å",
        str(limit),
        {"jump": jump, "step": step, "points": points},
    )


def history_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Whether earlier structures, or arrays already handed out, change an answer.

    Structures that differ in positions, cell, species and number of atoms are asked about in turn,
    forwards and backwards, and one ``Atoms`` is moved in place as programs do.
    """
    check = "independence of history"
    inputs = related_structures(atoms, rng)
    work = bare(inputs[0])
    work.calc = calculator
    first = work.get_forces()
    copy = first.copy()
    work.positions = inputs[1].positions
    energy, forces_in_place = float(work.get_potential_energy()), work.get_forces().copy()
    if not np.array_equal(first, copy):
        return Finding(
            check,
            Verdict.FAIL,
            "an array of forces that was handed out changed with the next calculation",
            "results are not changed later",
        )
    forwards = [evaluate(calculator, a) for a in inputs]
    backwards = [evaluate(calculator, a) for a in inputs[::-1]][::-1]
    for k, (a, b) in enumerate(itertools.pairwise(forwards)):
        same = a.energy == b.energy and np.array_equal(a.forces, b.forces)
        # molecules that are far from their images do not feel the cell; where it matters, an answer
        # of before is found below, since backwards the elements change in front of the cell
        if same and np.any(a.forces != 0.0) and DIFFERENCES[k] != "cell":
            return Finding(
                check,
                Verdict.FAIL,
                f"two structures that differ in {DIFFERENCES[k]} get the same results to the last "
                f"bit",
                "a new structure is calculated anew",
            )
    # ASE's energy may be another than the one that `evaluate` reads
    anew = bare(inputs[1])
    anew.calc = calculator
    change = abs(float(anew.get_potential_energy()) - energy) / len(atoms)
    forces = largest(anew.get_forces() - forces_in_place)
    for before, after in zip(forwards, backwards, strict=True):
        one, two = differences(before, after, len(before.forces))
        change, forces = max(change, one), max(forces, two)
    return compared(check, change, forces, *limits(atoms, calculator, noise, rng))


#: What each of `related_structures` differs in from the one before.
DIFFERENCES = ("positions", "cell", "elements", "number of atoms")


def related_structures(atoms: Atoms, rng: np.random.Generator) -> list[Atoms]:
    """Structures that each differ from the one before in one of `DIFFERENCES`.

    Where that is not possible, the next one is displaced as well, so that none is repeated.
    """
    start = displaced(atoms, rng, 0.05)
    moved = displaced(atoms, rng, 0.02)
    stretched = bare(moved)
    if atoms.pbc.any():
        stretched.set_cell(1.02 * moved.cell.array, scale_atoms=False)
    else:
        stretched = displaced(moved, rng, 0.01)
    exchanged = bare(stretched)
    if len(set(atoms.numbers.tolist())) > 1:
        k = int(np.flatnonzero(np.diff(atoms.numbers))[0])
        exchanged.numbers[[k, k + 1]] = exchanged.numbers[[k + 1, k]]
    else:
        exchanged = displaced(stretched, rng, 0.01)
    fewer = exchanged[:-1] if len(atoms) > 1 else displaced(exchanged, rng, 0.01)
    return [start, moved, stretched, exchanged, fewer]


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


def batch_error(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, noise: Noise | None = None
) -> Finding:
    """Structures calculated together against each by itself."""
    check = "batch against single"
    if not isinstance(calculator, ModelCalculator):
        return skipped(check, f"{type(calculator).__name__} takes one structure at a time")
    members = [displaced(atoms, rng, 0.05), displaced(atoms, rng, 0.02)]
    if len(atoms) > 1:
        members.insert(0, members[0][: len(atoms) // 2])
    change, forces = 0.0, 0.0
    for atoms_of, together in zip(members, calculator.evaluate_many(members), strict=True):
        single = calculator.evaluate(atoms_of)
        change = max(change, abs(together["energy"] - single["energy"]) / len(atoms_of))
        forces = max(forces, largest(together["forces"] - single["forces"]))
    return compared(check, change, forces, *limits(members[-1], calculator, noise, rng))


def accelerated_kernels(calculator: Any) -> Finding:
    """What the calculator found when it compared its accelerated kernels with the reference."""
    check = "accelerated kernels"
    found = getattr(calculator, "accelerated", None)
    if found is None:
        return skipped(check, f"{type(calculator).__name__} does not list them")
    if not found:
        return skipped(check, "none was used: the results are those of the reference")
    texts = [f"{name}: {'agrees' if reason is None else reason}" for name, reason in found.items()]
    refused = any(reason is not None for reason in found.values())
    return Finding(
        check,
        Verdict.WARN if refused else Verdict.PASS,
        "; ".join(texts),
        "each agrees with the reference within the rounding of its precision",
        {"kernels": found},
    )
