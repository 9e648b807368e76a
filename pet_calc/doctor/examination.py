"""All checks in order, from the cheapest to those that need the others to pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from pet_calc.doctor import coverage, performance
from pet_calc.doctor.config import DoctorConfig
from pet_calc.doctor.consistency import (
    accelerated_kernels,
    batch_error,
    history_error,
    precision_error,
    smoothness,
)
from pet_calc.doctor.derivatives import force_error, stress_error
from pet_calc.doctor.dynamics import energy_drift
from pet_calc.doctor.evaluation import Noise, evaluate, is_double, largest, measure_noise
from pet_calc.doctor.finding import Finding, Report, Verdict
from pet_calc.doctor.symmetry import (
    inversion_error,
    permutation_error,
    rotation_error,
    translation_error,
    wrapping_error,
)
from pet_calc.errors import InvalidStructureError, UnsupportedElementError
from pet_calc.workflows.guards import check_structure, non_finite


def examine(
    atoms: Atoms,
    calculator: Any,
    *,
    twin: Any | None = None,
    settings: DoctorConfig | None = None,
    on_check: Callable[[str, int, int | None], None] | None = None,
) -> Report:
    """Examine a calculator on a structure.

    Derivatives, symmetries and smoothness are looked at in double precision where there is a
    choice: rounding would hide what is wrong with a model. Speed, memory and dynamics belong to
    `calculator` as it is.

    Parameters
    ----------
    atoms : Atoms
        It is not changed.
    calculator : ase calculator
        Any that gives energy and forces.
    twin : ase calculator, optional
        The same potential in the other precision.
    settings : DoctorConfig, optional
    on_check : callable, optional
        Receives the name of each check before it begins, how many are done, and how many there are
        in all; None as long as it depends on the first ones.

    Raises
    ------
    InvalidStructureError, UnsupportedElementError
        For a structure that nothing can be calculated of, with this potential or any.
    """
    settings = settings or DoctorConfig()
    check_structure(atoms)
    exact = twin if twin is not None and is_double(twin) else calculator
    findings: list[Finding] = []
    total: int | None = None

    def begin(name: str) -> None:
        if on_check is not None:
            on_check(name, len(findings), total)

    def run(name: str, check: Callable[[], Finding]) -> None:
        begin(name)
        try:
            findings.append(check())
        except Exception as error:  # a calculator of anyone may fail in any way: that is a finding
            findings.append(failed(name, error))

    run("minimum distance", partial(coverage.minimum_distance, atoms))
    begin("single point")
    try:
        findings.append(single_point(atoms, calculator))
    except (InvalidStructureError, UnsupportedElementError):
        raise  # there is nothing to examine
    except Exception as error:
        findings.append(failed("single point", error))
    if findings[-1].verdict is not Verdict.FAIL:
        run("rounding", partial(rounding, atoms, exact, rng=np.random.default_rng(settings.seed)))
    if findings[-1].verdict is Verdict.FAIL:
        return Report(tuple(findings))
    noise = Noise(**findings[-1].values)
    checks = list(calculator_checks(atoms, calculator, exact, twin, noise, settings))
    total = len(findings) + len(checks)
    for name, check in checks:
        run(name, check)
    return Report(tuple(findings))


def failed(check: str, error: Exception) -> Finding:
    """A check that ended with an error."""
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return Finding(check, Verdict.FAIL, f"could not be done: {cause}")


def calculator_checks(
    atoms: Atoms,
    calculator: Any,
    exact: Any,
    twin: Any | None,
    noise: Noise,
    settings: DoctorConfig,
) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """What the calculator answers; every check draws from a generator of its own."""
    few = settings.quick
    seeds = iter(np.random.SeedSequence(settings.seed).spawn(20))

    def rng() -> np.random.Generator:
        return np.random.default_rng(next(seeds))

    yield "elements", partial(coverage.element_coverage, atoms, calculator)
    yield "distances of training", partial(coverage.distance_coverage, atoms, calculator)
    yield "density of training", partial(coverage.density_coverage, atoms, calculator)
    yield "uncertainty", partial(coverage.uncertainty, atoms, calculator)
    yield "independence of history", partial(history_error, atoms, calculator, rng=rng())
    yield "accelerated kernels", partial(accelerated_kernels, calculator)
    directions = 1 if few else 2
    yield (
        "forces against energy differences",
        partial(force_error, atoms, exact, rng=rng(), noise=noise, directions=directions),
    )
    yield (
        "stress against energy differences",
        partial(stress_error, atoms, exact, rng=rng(), noise=noise, directions=directions),
    )
    yield (
        "smoothness of the energy",
        partial(smoothness, atoms, exact, rng=rng(), noise=noise, points=9 if few else 17),
    )
    yield "permutation", partial(permutation_error, atoms, exact, rng=rng(), noise=noise)
    yield "translation", partial(translation_error, atoms, exact, rng=rng(), noise=noise)
    yield "wrapping", partial(wrapping_error, atoms, exact, rng=rng(), noise=noise)
    yield (
        "rotation",
        partial(rotation_error, atoms, exact, rng=rng(), noise=noise, rotations=1 if few else 3),
    )
    yield "inversion", partial(inversion_error, atoms, exact, rng=rng(), noise=noise)
    yield "float32 against float64", partial(precision_error, atoms, calculator, twin, rng=rng())
    yield "batch against single", partial(batch_error, atoms, calculator, rng=rng())
    yield "speed", partial(performance.speed, atoms, calculator, rng=rng(), seconds=1 if few else 3)
    yield (
        "memory and largest supercell",
        partial(
            performance.memory,
            atoms,
            calculator,
            sizes=2 if few else 3,
            most=2_000 if few else 20_000,
            seconds=5.0 if few else 20.0,
        ),
    )
    if not few:
        yield (
            "energy conservation (NVE)",
            partial(
                energy_drift,
                atoms,
                calculator,
                rng=rng(),
                picoseconds=settings.picoseconds,
                seconds=settings.seconds,
                temperature=settings.temperature,
            ),
        )


def rounding(atoms: Atoms, calculator: Any, *, rng: np.random.Generator) -> Finding:
    """The noise that limits of other checks allow for."""
    noise = measure_noise(atoms, calculator, rng=rng)
    return Finding(
        "rounding",
        Verdict.INFO,
        f"energy {noise.energy:.1e} eV, forces {noise.forces:.1e} eV/Å",
        "limits below allow for ten times as much, at most for single precision",
        {"energy": noise.energy, "forces": noise.forces},
    )


def single_point(atoms: Atoms, calculator: Any) -> Finding:
    """Energy and forces are there and are numbers."""
    point = evaluate(calculator, atoms)
    values = {"energy": point.energy, "forces": largest(point.forces)}
    if point.forces.shape != (len(atoms), 3):
        text = f"forces have shape {point.forces.shape}"
    elif found := non_finite(atoms, point.energy, point.forces):
        text = found.cause
    else:
        text = f"energy {point.energy:.6f} eV, largest force {values['forces']:.3g} eV/Å"
        return Finding("single point", Verdict.PASS, text, "finite, of the right shape", values)
    return Finding("single point", Verdict.FAIL, text, "finite, of the right shape", values)
