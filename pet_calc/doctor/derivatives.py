r"""Forces and stress against finite differences of the energy, over a ladder of steps.

The error of a central difference falls with the square of its step, so that over a ladder of steps
the logarithm of the error has slope 2 until rounding takes over. Wrong derivatives leave an error
that does not fall. Two neighboring steps h and h/r together cancel the leading term
(Richardson's extrapolation),

.. math:: D = \frac{r^2 D(h/r) - D(h)}{r^2 - 1} + O(h^4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from pet_calc.doctor.evaluation import Noise, displaced, evaluate, measure_noise, strained
from pet_calc.doctor.finding import Finding, Limit, Verdict, skipped, worst
from pet_calc.units import GPA

Array = NDArray[np.float64]

#: Steps of the coordinates in Å, and of the strain.
FORCE_STEPS = (8e-3, 2e-3, 5e-4)
STRAIN_STEPS = (4e-3, 1e-3, 2.5e-4)


@dataclass(frozen=True)
class Ladder:
    """Errors of a derivative along one direction.

    Attributes
    ----------
    steps : tuple of float
        Falling.
    errors : tuple of float
        Of the central difference at each step.
    extrapolated : float
        The smallest of the errors and of those of neighboring steps extrapolated to zero step.
    """

    steps: tuple[float, ...]
    errors: tuple[float, ...]
    extrapolated: float


def ladder(
    energy: Callable[[float], float], derivative: float, steps: Sequence[float], scale: float
) -> Ladder:
    """Errors of central differences of `energy` against its `derivative` at zero.

    Parameters
    ----------
    energy : callable
        Energy in eV as a function of the step.
    derivative : float
        dE/dh at zero from the calculator.
    steps : sequence of float
        Falling by a constant factor.
    scale : float
        The errors are divided by it.
    """
    central = np.array([(energy(h) - energy(-h)) / (2.0 * h) for h in steps])
    ratio2 = (steps[0] / steps[1]) ** 2
    extrapolated = (ratio2 * central[1:] - central[:-1]) / (ratio2 - 1.0)
    errors = np.abs(central - derivative) / scale
    best = min(float(errors.min()), float((np.abs(extrapolated - derivative) / scale).min()))
    return Ladder(tuple(steps), tuple(errors.tolist()), best)


def force_error(
    atoms: Atoms,
    calculator: Any,
    *,
    rng: np.random.Generator,
    directions: int = 2,
    steps: Sequence[float] = FORCE_STEPS,
    noise: Noise | None = None,
) -> Finding:
    r"""Forces against the energy along random directions of all coordinates at once.

    With a direction g of 3N normal random numbers, the difference between dE/dh along g and
    :math:`-F \cdot g`, over :math:`\sqrt{3N}`, is a normal random number of the root mean square
    of the errors of all force components, whatever their pattern.
    """
    name = "forces against energy differences"
    start = displaced(atoms, rng, 0.02)
    forces = evaluate(calculator, start).forces
    ladders = []
    for _ in range(directions):
        g = rng.standard_normal(start.positions.shape)
        scale = np.sqrt(g.size)

        def energy(h: float, g: Array = g) -> float:
            moved = start.copy()
            moved.positions += h * g
            return evaluate(calculator, moved).energy

        ladders.append(ladder(energy, -float((forces * g).sum()), steps, scale))
    noise = noise or measure_noise(start, calculator, rng=rng)
    rounding = 5.0 * noise.energy / (min(steps) * np.sqrt(forces.size))
    good = noise.bounded(rounding, 1e-5, 1e-3)
    limit = Limit(good, max(3.0 * good, min(1e-2, 0.01 * rms(forces))), "eV/Å")
    return judged(name, ladders, limit, f"{rms(forces):.2g} eV/Å")


def stress_error(
    atoms: Atoms,
    calculator: Any,
    *,
    rng: np.random.Generator,
    directions: int = 2,
    steps: Sequence[float] = STRAIN_STEPS,
    noise: Noise | None = None,
) -> Finding:
    r"""Stress against the energy along random strains, :math:`V^{-1} dE/dh = \sigma : \eta`.

    Taken at a strain of a percent: in a relaxed crystal a stress of the wrong sign is zero as well.
    """
    name = "stress against energy differences"
    if not atoms.pbc.all():
        return finite_system_stress(name, atoms, calculator)
    if "stress" not in calculator.implemented_properties:
        return skipped(name, f"{type(calculator).__name__} gives no stress")
    start = strained(displaced(atoms, rng, 0.02), random_strain(rng, 0.01))
    volume = float(start.get_volume())
    stress = evaluate(calculator, start, stress=True).stress
    assert stress is not None
    ladders = []
    for _ in range(directions):
        strain = random_strain(rng, 1.0)
        # the shear components stand twice in the double contraction
        eta = full_3x3_to_voigt_6_stress(strain) * np.array([1, 1, 1, 2, 2, 2])

        def energy(h: float, strain: Array = strain) -> float:
            return evaluate(calculator, strained(start, h * strain)).energy

        ladders.append(ladder(energy, volume * float(stress @ eta), steps, volume))
    noise = noise or measure_noise(start, calculator, rng=rng)
    good = noise.bounded(5.0 * noise.energy / (min(steps) * volume), 1e-6, 1e-4)
    limit = Limit(good, max(3.0 * good, min(1e-3, 0.05 * rms(stress))), "eV/Å³")
    size = f"{rms(stress):.2g} eV/Å³ ({rms(stress) / GPA:.2g} GPa)"
    return judged(name, ladders, limit, size)


def finite_system_stress(name: str, atoms: Atoms, calculator: Any) -> Finding:
    """A structure that is not periodic in three dimensions has no stress; a number is a trap."""
    reason = f"stress needs three periodic directions, this structure has {int(atoms.pbc.sum())}"
    if "stress" in calculator.implemented_properties:
        try:
            stress = evaluate(calculator, atoms, stress=True).stress
        except Exception:  # the calculator refuses, in whatever way: as it should
            return skipped(name, f"{reason}; {type(calculator).__name__} refuses to give one")
        if stress is not None and np.isfinite(stress).all():
            return Finding(
                name,
                Verdict.WARN,
                f"{reason}, but {type(calculator).__name__} gives "
                f"{np.abs(stress).max():.2g} eV/Å³; do not use it",
                "no stress of a molecule, wire or slab",
            )
    return skipped(name, reason)


def random_strain(rng: np.random.Generator, size: float) -> Array:
    """Symmetric strain (3, 3) in a random direction, of Frobenius norm `size`."""
    m = rng.standard_normal((3, 3))
    m = 0.5 * (m + m.T)
    return np.asarray(size * m / np.linalg.norm(m))


def rms(values: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def slope_of(ladders: Sequence[Ladder]) -> float:
    """D log(error) / d log(step), 2 for a smooth function.

    Of the root mean square over the ladders, and the larger one of the first two pairs of steps:
    at large steps the next term can cancel the leading one, at small steps rounding takes over. A
    kink, a jump or a wrong derivative spoils both.
    """
    steps = np.array(ladders[0].steps[:3])
    errors = np.sqrt(np.mean(np.square([item.errors[:3] for item in ladders]), axis=0))
    logs = np.log(np.maximum(errors, 1e-300))
    return float(np.max(np.diff(logs) / np.diff(np.log(steps))))


def judged(name: str, ladders: Sequence[Ladder], limit: Limit, size: str) -> Finding:
    """Finding of some ladders; also an error that does not fall with the step draws a warning."""
    error = max(item.extrapolated for item in ladders)
    slope = slope_of(ladders)
    # an error that is within the limit at the largest step has nowhere to fall to
    steep = slope >= 1.5 or max(item.errors[0] for item in ladders) <= limit.good
    return Finding(
        name,
        worst([limit.judge(error), Verdict.PASS if steep else Verdict.WARN]),
        f"{error:.1e} {limit.unit} of {size}; slope {slope:.2f}",
        f"{limit}; slope ≥ 1.5",
        {
            "error": error,
            "unit": limit.unit,
            "slope": slope,
            "steps": list(ladders[0].steps),
            "errors": [list(item.errors) for item in ladders],
        },
    )
