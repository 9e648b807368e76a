"""Measures of a generator for given compositions, beside random search at equal cost.

For each reference crystal `n` proposals of its composition and cell content are made. Structural
validity alone says little, as random cells have it too; the match rate is what counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from generators.matching import Matcher, smact_valid
from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.unimat import Crystal
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.fingerprint import Fingerprint, distance, fingerprint
from pet_calc.crystals.generation.generator import Generator
from pet_calc.crystals.generation.geometry_window import GeometryWindow, closest_contact
from pet_calc.crystals.generation.random_search import propose_random
from pet_calc.crystals.io.unimat import atoms_from_crystal
from pet_calc.errors import PetCalcError
from pet_calc.workflows.relax.symmetry import find_symmetry, symmetry_available


@dataclass(frozen=True)
class Measures:
    """What a source reaches; fractions of all its proposals unless said.

    Attributes
    ----------
    source : str
    compositions, samples : int
        Reference crystals, and proposals for each.
    made : float
        That are crystals at all.
    apart_half_angstrom : float
        All atoms at least 0.5 Å apart and a cell above 0.1 Å³ (the usual structural validity).
    apart_half_radii : float
        All atoms at least half the sum of their covalent radii apart.
    composition_valid : float
        SMACT; NaN where it is not installed.
    unique : float
        That are not the same as an earlier proposal for the same composition.
    novel : float
        Of those, that do not match the reference of their composition.
    p1 : float
        Without symmetry at 0.1 Å; NaN without spglib.
    match_rate : float
        References that one of their proposals matches; NaN without pymatgen.
    rmse : float
        Mean over the matched references of the best root mean square distance.
    coverage : float
        References with a proposal whose fingerprint differs by less than 0.2.
    density_distance : float
        Wasserstein distance of the densities, g/cm³.
    elements_distance : float
        Wasserstein distance of the numbers of elements; 0 where compositions are given.
    atoms_known : float
        With as many atoms as some reference; 1 where compositions are given.
    seconds : float
        Wall time of proposing; NaN if not measured.
    """

    source: str
    compositions: int
    samples: int
    made: float
    apart_half_angstrom: float
    apart_half_radii: float
    composition_valid: float
    unique: float
    novel: float
    p1: float
    match_rate: float
    rmse: float
    coverage: float
    density_distance: float
    elements_distance: float
    atoms_known: float
    seconds: float = math.nan


#: Proposals for each of some compositions.
Proposals = list[list[Atoms | Exception]]


def timed_proposals(
    source: Generator | str,
    wanted: Sequence[Composition],
    n: int,
    seed: int,
    sampler: SamplerConfig | None = None,
    *,
    attempts: int = 1,
) -> tuple[Proposals, float]:
    """`n` proposals for each composition by a generator or ``"random"``, and the wall time.

    A generator draws each at most `attempts` times, until it is in the window that random search
    has too (`GeometryWindow`).
    """
    began = time.monotonic()
    if isinstance(source, Generator):
        flat = source.sample(
            wanted, n, seed=seed, sampler=sampler, window=GeometryWindow(), attempts=attempts
        )
        found: Proposals = [flat[k * n : (k + 1) * n] for k in range(len(wanted))]
    else:
        found = random_proposals(wanted, n, seed)
    return found, time.monotonic() - began


def random_proposals(wanted: Sequence[Composition], n: int, seed: int) -> Proposals:
    """By random search; where it finds no room, its error stands for all of a composition."""
    found: Proposals = []
    for k, c in enumerate(wanted):
        try:
            found.append([*propose_random(c, n, seed=seed + 7919 * k)])
        except PetCalcError as error:
            found.append([error] * n)
    return found


def measure(
    source: str,
    proposed: Proposals,
    references: Sequence[Crystal],
    *,
    matcher: Matcher | None = None,
    smact: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Measures:
    """Evaluate proposals; see `Measures`.

    Parameters
    ----------
    source : str
        Its name.
    proposed : list of lists
        For the composition of each reference, as many for each.
    references : sequence of Crystal
        Crystals that the source has not been trained on.
    matcher : Matcher, optional
        Without one the match rate is NaN.
    smact : bool
        Ask SMACT; needs it installed.
    on_progress : callable, optional
        Told the number of references that are compared.
    """
    known = [atoms_from_crystal(c) for c in references]
    flags: dict[str, list[float]] = {
        k: [] for k in ("made", "half_a", "half_r", "smact", "unique", "novel", "p1")
    }
    best, covered, densities = [], [], []
    for k, (reference, candidates) in enumerate(zip(known, proposed, strict=True)):
        own = fingerprint(reference)
        distances: list[float] = []
        matches: list[float] = []
        prints: list[Fingerprint] = []
        for atoms in candidates:
            crystal = isinstance(atoms, Atoms)
            flags["made"].append(crystal)
            if not isinstance(atoms, Atoms):
                for name in ("half_a", "half_r"):
                    flags[name].append(False)
                continue
            flags["half_a"].append(_apart(atoms))
            flags["half_r"].append(closest_contact(atoms, 0.5) >= 0.5)
            if smact:
                flags["smact"].append(smact_valid(atoms) is True)
            densities.append(_density(atoms))
            if symmetry_available():
                flags["p1"].append(_is_p1(atoms))
            if not flags["half_a"][-1]:
                continue
            mine = fingerprint(atoms)
            flags["unique"].append(all(distance(mine, p) >= 0.02 for p in prints))
            prints.append(mine)
            distances.append(distance(mine, own))
            if matcher is not None:
                rms = matcher.rms(reference, atoms)
                flags["novel"].append(rms is None)
                if rms is not None:
                    matches.append(rms)
        best.append(min(matches, default=math.nan))
        covered.append(min(distances, default=math.inf) < 0.2)
        if on_progress is not None:
            on_progress(k + 1)
    matched = np.array(best)[np.isfinite(best)]
    return Measures(
        source=source,
        compositions=len(known),
        samples=len(proposed[0]),
        made=_mean(flags["made"]),
        apart_half_angstrom=_mean(flags["half_a"]),
        apart_half_radii=_mean(flags["half_r"]),
        composition_valid=_mean(flags["smact"]),
        unique=_mean(flags["unique"]),
        novel=_mean(flags["novel"]),
        p1=_mean(flags["p1"]),
        match_rate=len(matched) / len(known) if matcher is not None else math.nan,
        rmse=_mean(matched.tolist()),
        coverage=_mean(covered),
        density_distance=_wasserstein(densities, [_density(a) for a in known]),
        elements_distance=0.0,
        atoms_known=1.0,
    )


def measure_free(
    source: str,
    proposed: Sequence[Atoms | Exception],
    references: Sequence[Crystal],
    *,
    matcher: Matcher | None = None,
    smact: bool = False,
) -> Measures:
    """Evaluate proposals whose compositions were not given.

    Novel is what matches no reference, unique what is like none before it. The match rate is the
    fraction of proposals that match a reference, the coverage that of references that have a
    proposal within 0.2 (the compositions of most references are not among the proposals).
    """
    known = [atoms_from_crystal(c) for c in references]
    n = len(proposed)
    made = [a for a in proposed if isinstance(a, Atoms)]
    valid = [a for a in made if _apart(a)]
    by_formula: dict[str, list[Atoms]] = {}
    for a in known:
        by_formula.setdefault(_formula(a), []).append(a)
    prints: dict[str, list[Fingerprint]] = {}
    unique, rms, near = [], [], set()
    for a in valid:
        mine, formula = fingerprint(a), _formula(a)
        earlier = prints.setdefault(formula, [])
        unique.append(all(distance(mine, p) >= 0.02 for p in earlier))
        earlier.append(mine)
        others = by_formula.get(formula, [])
        near |= {id(b) for b in others if distance(mine, fingerprint(b)) < 0.2}
        if matcher is not None:
            matched = [r for b in others if (r := matcher.rms(b, a)) is not None]
            rms.append(min(matched, default=math.nan))
    hits = [r for r in rms if math.isfinite(r)]
    sizes = {len(a) for a in known}
    return Measures(
        source=source,
        compositions=n,
        samples=1,
        made=len(made) / n,
        apart_half_angstrom=len(valid) / n,
        apart_half_radii=sum(closest_contact(a, 0.5) >= 0.5 for a in made) / n,
        composition_valid=_mean([smact_valid(a) is True for a in made]) if smact else math.nan,
        unique=_mean(unique),
        novel=1 - len(hits) / len(rms) if rms else math.nan,
        p1=_mean([_is_p1(a) for a in made]) if symmetry_available() else math.nan,
        match_rate=len(hits) / n if matcher is not None else math.nan,
        rmse=_mean(hits),
        coverage=len(near) / len(known),
        density_distance=_wasserstein([_density(a) for a in made], [_density(a) for a in known]),
        elements_distance=_wasserstein(
            [len(set(a.numbers)) for a in made], [len(set(a.numbers)) for a in known]
        ),
        atoms_known=sum(len(a) in sizes for a in made) / n,
    )


def _formula(atoms: Atoms) -> str:
    return Composition.from_numbers(np.asarray(atoms.numbers)).formula


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _apart(atoms: Atoms) -> bool:
    from ase.neighborlist import neighbor_list

    return atoms.get_volume() > 0.1 and not len(neighbor_list("i", atoms, 0.5))


def _density(atoms: Atoms) -> float:
    return float(atoms.get_masses().sum() / atoms.get_volume() * 1.66053906660)


def _is_p1(atoms: Atoms) -> bool:
    from pet_calc.errors import InvalidStructureError

    try:
        return int(find_symmetry(atoms, 0.1).number) == 1
    except InvalidStructureError:
        return True


def _wasserstein(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(first, second)) if first and second else math.nan
