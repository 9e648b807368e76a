"""Whether the structure lies within what the potential was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from pet_calc.doctor.evaluation import bare
from pet_calc.doctor.finding import Finding, Limit, Verdict, skipped, worst
from pet_calc.io.models.domain import training_domain
from pet_calc.workflows.guards import (
    GuardConfig,
    closest_pair,
    contact_limits,
    offered,
    unknown_elements,
)
from pet_calc.workflows.guards.checks import training_limits


def minimum_distance(atoms: Atoms) -> Finding:
    """The closest pair relative to the sum of its covalent radii."""
    check = "minimum distance"
    contact = GuardConfig().contact
    pair = closest_pair(atoms, contact_limits(1.0), reach=8.0)
    rule = f"≥ 0.7 of the covalent radii's sum, fails below {contact:g}"
    if pair is None:
        return Finding(check, Verdict.PASS, "no two atoms within 8 Å", rule)
    ratio = pair.distance / pair.limit
    verdict = Verdict.PASS if ratio >= 0.7 else Verdict.WARN if ratio >= contact else Verdict.FAIL
    return Finding(
        check,
        verdict,
        f"{pair.named(atoms)}: {pair.distance:.3f} Å, {ratio:.2f} of the radii's sum",
        rule,
        {"distance": pair.distance, "ratio": ratio, "atoms": list(pair.atoms)},
    )


def element_coverage(atoms: Atoms, calculator: Any) -> Finding:
    """The elements against those of the training structures."""
    check = "elements"
    domain = training_domain(calculator)
    present = sorted(set(atoms.get_chemical_symbols()))
    if domain is None:
        return skipped(check, f"{type(calculator).__name__} does not say what it was trained on")
    outside = unknown_elements(atoms, domain)
    trained = len(domain.elements)
    return Finding(
        check,
        Verdict.PASS if outside is None else Verdict.FAIL,
        f"{', '.join(present)}, all of the {trained} trained ones" if outside is None
        else outside.cause,
        "all were in the training structures",
        {"present": present, "trained": list(domain.elements)},
    )  # fmt: skip


def distance_coverage(atoms: Atoms, calculator: Any) -> Finding:
    """The closest pair of elements relative to the shortest such distance in training."""
    check = "distances of training"
    domain = training_domain(calculator)
    if domain is None or not domain.shortest_distances:
        return skipped(check, f"{type(calculator).__name__} does not say what it was trained on")
    margin = GuardConfig().distance_margin
    # a tiny limit keeps the ratio defined for pairs without one
    pair = closest_pair(atoms, np.maximum(training_limits(domain, 0.0), 1e-9), reach=6.0)
    rule = f"≥ 0.97 of the shortest in training, fails below {1.0 - margin:g}"
    if pair is None or pair.limit < 1e-6:
        return Finding(check, Verdict.PASS, "no pair that has a limit is near", rule)
    ratio = pair.distance / pair.limit
    verdict = Verdict.PASS if ratio >= 0.97 else Verdict.WARN
    return Finding(
        check,
        verdict if ratio >= 1.0 - margin else Verdict.FAIL,
        f"{pair.named(atoms)}: {pair.distance:.3f} Å, in training ≥ {pair.limit:.3f} Å",
        rule,
        {"distance": pair.distance, "ratio": ratio, "atoms": list(pair.atoms)},
    )


def density_coverage(atoms: Atoms, calculator: Any) -> Finding:
    """The volume per atom against the range of the training structures."""
    check = "density of training"
    domain = training_domain(calculator)
    if domain is None or domain.volume_per_atom is None:
        return skipped(check, f"{type(calculator).__name__} records no densities of its training")
    if not atoms.pbc.all():
        return skipped(check, "a structure that is not periodic has no density")
    volume = float(atoms.get_volume()) / len(atoms)
    low, high = domain.volume_per_atom
    inside = 0.97 * low <= volume <= 1.03 * high
    return Finding(
        check,
        Verdict.PASS if inside else Verdict.WARN,
        f"{volume:.2f} Å³/atom, in training {low:.2f} to {high:.2f}",
        "within 3 % of the range",
        {"volume_per_atom": volume, "trained": [low, high]},
    )


def uncertainty(atoms: Atoms, calculator: Any) -> Finding:
    """The uncertainty of the potential for this structure."""
    check = "uncertainty"
    work = bare(atoms)
    work.calc = calculator
    parts, verdicts, values = [], [], {}
    energy = offered(work, "energy_uncertainty")
    if energy is not None:
        per_atom = float(energy) / len(atoms)
        parts.append(f"energy {1e3 * per_atom:.2g} meV/atom")
        verdicts.append(ENERGY_UNCERTAINTY.judge(per_atom))
        values["energy_per_atom"] = per_atom
    forces = offered(work, "forces_uncertainty")
    if forces is not None:
        size = np.linalg.norm(np.asarray(forces).reshape(len(atoms), -1), axis=1)
        k = int(np.argmax(size))
        parts.append(f"forces up to {size[k]:.2g} eV/Å (atom {k}, {atoms.symbols[k]})")
        verdicts.append(FORCE_UNCERTAINTY.judge(float(size[k])))
        values |= {"forces": float(size[k]), "atom": k}
    if not parts:
        return skipped(check, f"{type(calculator).__name__} does not estimate it")
    rule = f"energy {ENERGY_UNCERTAINTY}; forces {FORCE_UNCERTAINTY}"
    return Finding(check, worst(verdicts), ", ".join(parts), rule, values)


ENERGY_UNCERTAINTY = Limit(0.01, 0.1, "eV/atom")
FORCE_UNCERTAINTY = Limit(0.2, 1.0, "eV/Å")
