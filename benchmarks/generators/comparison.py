"""A generator beside random search: the same compositions, proposals, relaxations and hull."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from generators.matching import Matcher
from generators.measures import (
    Measures,
    Proposals,
    measure,
    measure_free,
    timed_proposals,
)
from generators.stability import Stability, stability
from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.unimat import Crystal
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.generator import ATTEMPTS, Generator
from pet_calc.crystals.generation.hull import Hull
from pet_calc.crystals.generation.references import competitors, elemental_hull, relaxed_phases
from pet_calc.crystals.io.unimat import atoms_from_crystal
from pet_calc.workflows.relax import RelaxConfig
from pet_calc.workflows.relax.many import settle_model

#: Told the name of a stage, how far it is, and its length.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ComparisonConfig:
    """How sources are compared.

    Attributes
    ----------
    n : int
        Proposals for each reference.
    seed : int
    sampler : SamplerConfig
    attempts : int
        How often a generator draws each proposal at most until it is in the window of random
        search, as `generate` does; with 1 every draw counts.
    smact : bool
        Ask SMACT for the validity of compositions.
    free : bool
        The generator chooses as many compositions as there are references; random search is given
        the same.
    relax : RelaxConfig
        Caps of the relaxations, of proposals and competitors.
    threshold : float
        eV/atom above the hull that counts as stable.
    """

    n: int = 1
    seed: int = 0
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    attempts: int = ATTEMPTS
    smact: bool = False
    free: bool = False
    relax: RelaxConfig = field(default_factory=lambda: RelaxConfig(cell="free", fmax=0.05))
    threshold: float = 0.1


@dataclass(frozen=True)
class Comparison:
    """What was found, a row per source; no relaxed ones without a calculator."""

    proposed: list[Measures]
    relaxed: list[Stability]
    hull: Hull | None
    notes: list[str]


def compare(
    generator: Generator | None,
    references: Sequence[Crystal],
    config: ComparisonConfig,
    *,
    matcher: Matcher | None = None,
    calculator: Any = None,
    rivals: Sequence[Crystal] = (),
    known: Sequence[Crystal] = (),
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure a generator and random search.

    Parameters
    ----------
    generator : Generator, optional
        Without one random search stands alone.
    references : sequence of Crystal
        That the generator was not trained on.
    config : ComparisonConfig
    matcher : Matcher, optional
    calculator : ase calculator, optional
        Relaxes the proposals.
    rivals : sequence of Crystal
        Competing phases; those in the chemical systems at hand are relaxed for the hull.
    known : sequence of Crystal
        That are not novel.
    on_progress : callable, optional
    """
    say = on_progress or (lambda stage, done, total: None)
    targets = [atoms_from_crystal(c) for c in references]
    sources: list[Generator | str] = [*([generator] if generator else []), "random"]
    measures: list[Measures] = []
    groups: list[Proposals] = []
    if config.free:
        if generator is None:
            raise ValueError("random search is given its compositions; `free` needs a generator")
        wanted = generator.compositions(len(references), seed=config.seed)
        for source in sources:
            say(f"proposals, {_name(source)}", 0, 0)
            made, seconds = timed_proposals(
                source, wanted, 1, config.seed, config.sampler, attempts=config.attempts
            )
            found = measure_free(
                _name(source), [a for g in made for a in g], references, matcher=matcher,
                smact=config.smact,
            )  # fmt: skip
            measures.append(replace(found, seconds=seconds))
            groups.append(made)
        targets = []
    else:
        wanted = [Composition.from_numbers(np.asarray(a.numbers)) for a in targets]
        for source in sources:
            say(f"proposals, {_name(source)}", 0, 0)
            made, seconds = timed_proposals(
                source, wanted, config.n, config.seed, config.sampler, attempts=config.attempts
            )
            found = measure(
                _name(source), made, references, matcher=matcher, smact=config.smact,
                on_progress=partial(_told, say, f"measures, {_name(source)}", len(targets)),
            )  # fmt: skip
            measures.append(replace(found, seconds=seconds))
            groups.append(made)
    if calculator is None:
        return Comparison(measures, [], None, [])
    hull, notes = _hull(wanted, rivals, calculator, config.relax, say)
    others = [atoms_from_crystal(c) for c in known]
    relaxed = []
    for source, made in zip(sources, groups, strict=True):
        relaxed.append(
            stability(
                _name(source), made, calculator, relax=config.relax, hull=hull,
                references=targets, known=others, matcher=matcher, threshold=config.threshold,
                on_result=_counted(f"relaxation, {_name(source)}", sum(map(len, made)), say),
            )
        )  # fmt: skip
    return Comparison(measures, relaxed, hull, notes)


def _told(say: OnProgress, stage: str, total: int, done: int) -> None:
    say(stage, done, total)


def _name(source: Generator | str) -> str:
    return source if isinstance(source, str) else source.name


def _counted(stage: str, total: int, say: OnProgress) -> Callable[[int, Any], None]:
    """Tell how many of a stage's structures are done, whatever their order."""
    count = itertools.count(1)
    return lambda index, outcome: say(stage, next(count), total)


def _hull(
    wanted: Sequence[Composition],
    rivals: Sequence[Crystal],
    calculator: Any,
    relax: RelaxConfig,
    say: OnProgress,
) -> tuple[Hull, list[str]]:
    """Elements of the compositions, and their competitors, relaxed with one calculator."""

    def told(done: int, total: int) -> None:
        say("hull", done, total)

    symbols = sorted({e for c in wanted for e in c.elements})
    settle_model([Atoms(c.numbers) for c in wanted], calculator, symbols)
    hull, reasons = elemental_hull(symbols, calculator, on_progress=told)
    hull = Hull(tuple(p for p in hull.phases if p.composition.elements[0] in symbols), hull.origin)
    inside: list[Atoms] = competitors([atoms_from_crystal(c) for c in rivals], wanted)
    names = [a.get_chemical_formula() for a in inside]
    phases, failed = relaxed_phases(inside, calculator, relax, names, on_progress=told)
    notes = [f"no reference energy of {e}: {r}" for e, r in reasons.items() if e in symbols]
    notes += [f"left out {names[k]}: {r}" for k, r in failed.items()]
    return hull.with_phases(phases), notes
