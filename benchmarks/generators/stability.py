"""What proposals become when they are relaxed: matches, and S.U.N. on a self-consistent hull.

S.U.N. is the fraction of all proposals that are stable (at most `threshold` above the hull),
unique (no earlier stable one is the same crystal) and novel (not among known crystals); C. Zeni et
al., Nature 639, 624 (2025). Hull and proposals have their energies from one calculator. Sources
are compared at equal numbers of relaxations under equal caps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase import Atoms

from generators.matching import Matcher
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.fingerprint import distance, fingerprint
from pet_calc.crystals.generation.hull import Hull
from pet_calc.crystals.generation.pipeline import relaxation_rmsd
from pet_calc.crystals.generation.proposals import symmetrized
from pet_calc.crystals.generation.relaxation import relax_proposals
from pet_calc.workflows.relax import Relaxation, RelaxConfig
from pet_calc.workflows.relax.symmetry import find_symmetry, symmetry_available

#: Difference of fingerprints below which crystals are the same where there is no matcher.
SAME: Final = 0.05


@dataclass(frozen=True)
class Stability:
    """Measures of a source after the relaxation; fractions of all its proposals unless said.

    Attributes
    ----------
    source : str
    proposals : int
    converged, failed : float
        Relaxed to the forces asked for; without an energy.
    rmsd : float
        Median displacement in the relaxation, Å.
    energy_drop : float
        Median energy gained by it, eV/atom.
    p1 : float
        Without symmetry at 0.1 Å after it.
    match_rate : float
        References matched by the proposals for their composition; NaN without pymatgen.
    rmse : float
        Mean over matched references of the best root mean square distance.
    above_hull : float
        Median energy above the hull of what has one, eV/atom; of the elements alone, that is the
        formation energy.
    judged : float
        That have an energy above a hull with compounds.
    stable, stable_unique, sun : float
        At most the threshold above it; of those, each crystal once; and unknown. NaN without
        competitors.
    seconds : float
        Wall time of the relaxations.
    """

    source: str
    proposals: int
    converged: float
    failed: float
    rmsd: float
    energy_drop: float
    p1: float
    match_rate: float
    rmse: float
    above_hull: float
    judged: float
    stable: float
    stable_unique: float
    sun: float
    seconds: float


def stability(
    source: str,
    proposed: Sequence[Sequence[Atoms | Exception]],
    calculator: Any,
    *,
    relax: RelaxConfig,
    hull: Hull | None = None,
    references: Sequence[Atoms] = (),
    known: Sequence[Atoms] = (),
    matcher: Matcher | None = None,
    threshold: float = 0.1,
    symprec: float = 0.1,
    on_result: Callable[[int, Relaxation], None] | None = None,
) -> Stability:
    """Relax all proposals and judge them; see `Stability`.

    Parameters
    ----------
    source : str
        Its name.
    proposed : sequence of sequences
        Proposals, grouped by the reference whose composition they have.
    calculator : ase calculator
    relax : RelaxConfig
    hull : Hull, optional
        Of the same calculator.
    references : sequence of Atoms
        One for each group; none where there is nothing to be found again.
    known : sequence of Atoms
        Crystals that are not novel.
    matcher : Matcher, optional
        Decides which crystals are the same; otherwise fingerprints do.
    threshold : float
        eV/atom above the hull up to which a crystal counts as stable.
    symprec : float
        Symmetry within so many Å is imposed before the relaxation; 0: none.
    on_result : callable, optional
        Told index and outcome.
    """
    flat = [(k, a) for k, group in enumerate(proposed) for a in group]
    todo = [(k, a) for k, a in flat if isinstance(a, Atoms)]
    if symprec and symmetry_available():
        todo = [(k, symmetrized(a, symprec)) for k, a in todo]
    began = time.monotonic()
    outcomes = relax_proposals([a for _, a in todo], calculator, relax, on_result=on_result)
    seconds = time.monotonic() - began
    done = [
        (k, start, o)
        for (k, start), o in zip(todo, outcomes, strict=True)
        if o.atoms is not None and o.status in ("converged", "steps", "time")
    ]
    same = _comparison(matcher)
    best: dict[int, float] = {}
    if references and matcher is not None:
        for k, _, o in done:
            assert o.atoms is not None
            rms = matcher.rms(references[k], o.atoms)
            if rms is not None:
                best[k] = min(rms, best.get(k, math.inf))
    above = [_above(hull, o) for _, _, o in done]
    compounds = hull is not None and hull.compounds
    stable = [
        o.atoms
        for (_, _, o), e in zip(done, above, strict=True)
        if compounds and e <= threshold and o.atoms is not None
    ]
    unique = _unique(stable, same)
    novel = [a for a in unique if not any(same(a, b) for b in _of_formula(a, known))]
    n = max(1, len(flat))
    nothing = math.nan
    return Stability(
        source=source,
        proposals=len(flat),
        converged=sum(o.converged for o in outcomes) / n,
        failed=1 - len(done) / n,
        rmsd=_median([relaxation_rmsd(s, o.atoms) for _, s, o in done if o.atoms is not None]),
        energy_drop=_median([_drop(s, o, calculator) for _, s, o in done]),
        p1=_mean([find_symmetry(o.atoms, 0.1).number == 1 for _, _, o in done if o.atoms])
        if symmetry_available()
        else nothing,
        match_rate=len(best) / len(references) if references and matcher else nothing,
        rmse=_mean(list(best.values())),
        above_hull=_median([e for e in above if math.isfinite(e)]),
        judged=sum(math.isfinite(e) for e in above) / n if compounds else 0.0,
        stable=len(stable) / n if compounds else nothing,
        stable_unique=len(unique) / n if compounds else nothing,
        sun=len(novel) / n if compounds else nothing,
        seconds=seconds,
    )


def _comparison(matcher: Matcher | None) -> Callable[[Atoms, Atoms], bool]:
    """Whether two crystals are the same."""
    if matcher is not None:
        return lambda a, b: matcher.rms(a, b) is not None
    return lambda a, b: distance(fingerprint(a), fingerprint(b)) < SAME


def _unique(crystals: Sequence[Atoms], same: Callable[[Atoms, Atoms], bool]) -> list[Atoms]:
    kept: list[Atoms] = []
    for a in crystals:
        if not any(same(a, b) for b in _of_formula(a, kept)):
            kept.append(a)
    return kept


def _of_formula(atoms: Atoms, others: Sequence[Atoms]) -> list[Atoms]:
    """Those of the same reduced formula."""
    wanted = Composition.from_numbers(np.asarray(atoms.numbers)).formula
    elements = set(atoms.numbers.tolist())
    return [
        b
        for b in others
        if set(b.numbers.tolist()) == elements
        and Composition.from_numbers(np.asarray(b.numbers)).formula == wanted
    ]


def _above(hull: Hull | None, outcome: Relaxation) -> float:
    if hull is None:
        return math.nan
    assert outcome.atoms is not None
    composition = Composition.from_numbers(np.asarray(outcome.atoms.numbers))
    return hull.above(composition, outcome.energy / composition.n_atoms).energy


def _drop(start: Atoms, outcome: Relaxation, calculator: Any) -> float:
    """Energy of the start less that of the end, eV/atom."""
    work = start.copy()
    work.calc = calculator
    return float((work.get_potential_energy() - outcome.energy) / len(work))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else math.nan
