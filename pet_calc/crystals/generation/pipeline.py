"""From a formula to ranked crystals: propose, guard, relax, rank, compare, test.

Each stage leaves its results in the folder before the next one begins, and each candidate of the
relaxation on its own, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from ase import Atoms

from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.fingerprint import duplicates
from pet_calc.crystals.generation.hull import Hull
from pet_calc.crystals.generation.proposals import FILE as PROPOSALS
from pet_calc.crystals.generation.proposals import (
    Proposal,
    propose,
    read_proposals,
    write_proposals,
)
from pet_calc.crystals.generation.references import elemental_hull, hull_id
from pet_calc.crystals.generation.relaxation import relax_proposals
from pet_calc.io.models.files import write_atomically
from pet_calc.io.runs.provenance import provenance
from pet_calc.workflows.relax.journal import Entry, Journal
from pet_calc.workflows.relax.many import settle_model
from pet_calc.workflows.relax.symmetry import space_group

RELAXED: Final = "relax"
#: Energies of one crystal, relaxed from different starts, differ by less, eV/atom.
SAME_ENERGY: Final = 0.005
OnStage = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A proposal and what became of it.

    Attributes
    ----------
    proposal : Proposal
    status : str
        "converged", "steps", "time" or "stopped" as of the relaxation, "failed", "rejected" by the
        window, "filtered" by the space groups asked for, or "duplicate".
    reason : str
    atoms : Atoms or None
        Relaxed, with its energy.
    energy : float
        eV/atom; NaN without one.
    above_hull : float
        eV/atom above the hull or, if there are only elements, formation energy.
    hull_reason : str
    decomposition : str
    space_group : str
        After the relaxation.
    rmsd : float
        Between proposal and relaxed crystal, Å.
    duplicate_of : str
        Identifier of the candidate that stands for the same crystal (`representative`).
    steps : int
    lowest_frequency : float
        THz; negative for an imaginary mode; NaN if not computed.
    md : str
        Outcome of the molecular dynamics.
    """

    proposal: Proposal
    status: str
    reason: str = ""
    atoms: Atoms | None = None
    energy: float = math.nan
    above_hull: float = math.nan
    hull_reason: str = ""
    decomposition: str = ""
    space_group: str = ""
    rmsd: float = math.nan
    duplicate_of: str = ""
    steps: int = 0
    lowest_frequency: float = math.nan
    md: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is one of the results: relaxed, wanted and no duplicate."""
        return self.status in ("converged", "steps", "time")


@dataclass(frozen=True, eq=False)
class Generation:
    """Result of a run.

    Attributes
    ----------
    candidates : list of Candidate
        The kept ones by energy above the hull (or the elements), then the others.
    hull : Hull
    hull_id : str
        Of the calculator of the hull.
    origin : dict
        Provenance.
    notes : list of str
        What did not go as asked for.
    """

    candidates: list[Candidate]
    hull: Hull
    hull_id: str
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[Candidate]:
        """The results, by energy."""
        return [c for c in self.candidates if c.kept]

    @property
    def energy_column(self) -> str:
        """What the energies are relative to."""
        return "e_hull" if self.hull.compounds else "formation_energy"


def generate(
    config: GenerateConfig,
    calculator: Any,
    out: Path | str | None = None,
    *,
    hull: Hull | None = None,
    templates: Sequence[Atoms] | None = None,
    resume: bool = False,
    on_stage: OnStage | None = None,
    on_result: Callable[[int, Any], None] | None = None,
) -> Generation:
    """Propose, relax and rank crystals of a formula.

    Parameters
    ----------
    config : GenerateConfig
    calculator : ase calculator
        Relaxes all candidates and, unless `hull` is given, the references of the elements.
    out : Path or str, optional
        Folder of the run, from which an interrupted one goes on; tables and CIFs are written there
        by `generation.results.write_results`. Without it nothing is kept but the result.
    hull : Hull, optional
        Competitors. Its energies must come from the same calculator.
    templates : sequence of Atoms, optional
        Crystals whose sites element substitution uses instead of the built-in structure types.
    resume : bool
        Take over what the folder holds.
    on_stage, on_result : callable, optional
        Told the name of each stage; index and `Relaxation` of each candidate.

    Raises
    ------
    ValueError
        If `hull` is of another calculator.
    """
    if out is None:
        with TemporaryDirectory() as folder:
            return generate(
                config, calculator, folder, hull=hull, templates=templates, on_stage=on_stage,
                on_result=on_result,
            )  # fmt: skip
    say = on_stage or (lambda text: None)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if resume and (out / PROPOSALS).is_file():
        proposals = read_proposals(out)
    else:
        proposals = propose(config, templates, lambda s: say(f"proposals: {s}"))
        write_proposals(out, proposals)
    waiting = [p.atoms for p in proposals if not p.objection and p.atoms is not None]
    # energies of the elements are compared with those of the candidates
    settle_model(waiting, calculator, {e for a in waiting for e in a.get_chemical_symbols()})
    origin = provenance(calculator, seed=config.seed, packages=("ase", "numpy", "torch", "spglib"))
    say("relaxation")
    candidates = _relaxed(proposals, config, calculator, out, origin, resume, on_result)
    notes: list[str] = []
    elements = sorted({s for p in proposals if p.atoms for s in set(p.atoms.symbols)})
    if hull is None:
        say("reference energies of the elements")
        hull, reasons = elemental_hull(elements, calculator)
        notes += [f"no reference energy of {e}: {r}" for e, r in reasons.items() if e in elements]
    else:
        _require_same(hull, calculator)
    say("comparison")
    candidates = _ranked(candidates, config, hull)
    result = Generation(candidates, hull, hull_id(hull.origin), origin, notes)
    if config.phonons or config.md:
        _test_best(result, config, calculator, out, say)
    return result


def _require_same(hull: Hull, calculator: Any) -> None:
    from pet_calc.crystals.generation.references import identity

    own, other = identity(calculator), hull.origin
    if "sha256" in own and own != other:
        raise ValueError(
            f"the hull was made with {other}, but the calculator is {own}: energies of two "
            f"calculators are not compared; build the hull again with `pet-calc hull build`"
        )


def _relaxed(
    proposals: list[Proposal],
    config: GenerateConfig,
    calculator: Any,
    out: Path,
    origin: dict[str, Any],
    resume: bool,
    on_result: Callable[[int, Any], None] | None,
) -> list[Candidate]:
    """Relax what the window let through; each outcome is on disk before the next."""
    wanted = [p for p in proposals if not p.objection]
    entries = [Entry(p.id, 0, p.atoms) for p in wanted]
    folder = out / RELAXED
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, entries, origin, resume=resume)
    todo = journal.missing
    waiting = [a for k in todo if (a := entries[k].atoms) is not None]

    def done(position: int, outcome: Any) -> None:
        journal.add(todo[position], outcome)
        if on_result is not None:
            on_result(todo[position], outcome)

    if waiting:
        relax_proposals(waiting, calculator, config.relax, window=config.window, on_result=done)
    journal.finish()
    outcomes = {wanted[k].id: line for k, line in journal.lines.items()}
    return [_candidate(p, outcomes.get(p.id)) for p in proposals]


def _candidate(proposal: Proposal, line: dict[str, Any] | None) -> Candidate:
    if proposal.objection or line is None:
        missing = proposal.objection or "not reached"
        status = "rejected" if proposal.atoms is not None else "failed"
        return Candidate(proposal, status, missing)
    row = line["row"]
    if line["frame"] is None:
        return Candidate(proposal, row["status"], row["reason"])
    from io import StringIO

    from ase.io import read

    atoms = read(StringIO(line["frame"]), format="extxyz")
    assert isinstance(atoms, Atoms)
    assert proposal.atoms is not None
    return Candidate(
        proposal,
        row["status"],
        row["reason"],
        atoms,
        energy=float(row["energy_eV_per_atom"]),
        rmsd=relaxation_rmsd(proposal.atoms, atoms),
        steps=int(row["steps"]),
    )


def relaxation_rmsd(start: Atoms, end: Atoms) -> float:
    """Root mean square displacement in the relaxed cell in Å, without the common translation."""
    delta = end.get_scaled_positions(wrap=False) - start.get_scaled_positions(wrap=False)
    delta -= np.round(delta)
    # the mean must not depend on the image that each atom is counted in
    delta -= delta[0]
    delta -= np.round(delta)
    delta -= delta.mean(0)
    return float(np.sqrt(((delta @ end.cell.array) ** 2).sum(1).mean()))


def _ranked(candidates: list[Candidate], config: GenerateConfig, hull: Hull) -> list[Candidate]:
    """Energies above the hull, symmetry, duplicates and order."""
    symprec = config.symprec or 1e-2
    found = []
    for c in candidates:
        if c.atoms is None:
            found.append(c)
            continue
        composition = Composition.from_numbers(np.asarray(c.atoms.numbers))
        above = hull.above(composition, c.energy)
        group = space_group(c.atoms, symprec)
        c = replace(
            c,
            above_hull=above.energy,
            hull_reason=above.reason,
            decomposition=" + ".join(f"{x:.3f} {f}" for f, x in above.decomposition),
            space_group=group,
        )
        if c.kept and config.space_groups and _number(group) not in config.space_groups:
            c = replace(c, status="filtered", reason=f"space group {group} is not asked for")
        found.append(c)
    found.sort(key=_place)
    kept = [c for c in found if c.kept]
    first = duplicates([c.atoms for c in kept if c.atoms is not None], config.duplicate)
    groups: dict[int, list[Candidate]] = {}
    for c, k in zip(kept, first, strict=True):
        groups.setdefault(k, []).append(c)
    chosen = [representative(groups[k]) for k in first]
    marked = [
        c if c is best else replace(
            c, status="duplicate", duplicate_of=best.proposal.id,
            reason=f"the same crystal as {best.proposal.id}")
        for c, best in zip(kept, chosen, strict=True)
    ]  # fmt: skip
    unique = sorted((c for c in marked if c.kept), key=_place)
    return [*unique, *(c for c in marked if not c.kept), *(c for c in found if not c.kept)]


def representative(same: Sequence[Candidate]) -> Candidate:
    """The most symmetric of the candidates that are one crystal, of those the first.

    Relaxations of one crystal end at slightly different energies, so that the lowest may be a
    distorted one: within `SAME_ENERGY` of it the highest number of a space group decides.

    Parameters
    ----------
    same : sequence of Candidate
        By energy.
    """
    near = [c for c in same if c.energy <= same[0].energy + SAME_ENERGY]
    return max(near, key=lambda c: _number(c.space_group))


def _place(c: Candidate) -> tuple[bool, bool, float]:
    """Sorts by energy above the hull, which is that of the energy within one composition."""
    known = math.isfinite(c.above_hull)
    energy = c.above_hull if known else c.energy
    return not c.kept, not known, energy if math.isfinite(energy) else math.inf


def _number(group: str) -> int:
    return int(group.rsplit("(", 1)[-1].rstrip(")")) if "(" in group else 0


def _test_best(
    result: Generation, config: GenerateConfig, calculator: Any, out: Path, say: OnStage
) -> None:
    """Phonons and molecular dynamics of the best; a failure is entered and goes no further."""
    for k, c in enumerate(result.kept[: max(config.phonons, config.md)]):
        path = out / "tests" / f"{c.proposal.id}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        assert c.atoms is not None
        if k < config.phonons and "lowest_frequency" not in known:
            say(f"phonons of {c.proposal.id}")
            known["lowest_frequency"], known["phonon_reason"] = _phonons(c.atoms, calculator)
            write_atomically(path, json.dumps(known).encode())
        if k < config.md and "md" not in known:
            say(f"molecular dynamics of {c.proposal.id}")
            known["md"] = _dynamics(c, config, calculator, out / "md" / c.proposal.id)
            write_atomically(path, json.dumps(known).encode())
        lowest = known.get("lowest_frequency")
        reason = "; ".join(r for r in (c.reason, known.get("phonon_reason", "")) if r)
        result.candidates[result.candidates.index(c)] = replace(
            c,
            lowest_frequency=math.nan if lowest is None else lowest,
            md=known.get("md", ""),
            reason=reason,
        )


def _phonons(atoms: Atoms, calculator: Any) -> tuple[float | None, str]:
    from pet_calc.workflows.phonons import PhononConfig, phonons

    work = atoms.copy()
    work.calc = calculator
    try:
        found = phonons(work, PhononConfig(fmax=1e-3, min_length=8.0))
    except Exception as error:  # calculators and phonopy fail in ways of their own
        return None, f"phonons: {type(error).__name__}: {error}"
    return float(found.spectrum.lowest), ""


def _dynamics(c: Candidate, config: GenerateConfig, calculator: Any, out: Path) -> str:
    from pet_calc.workflows.md import run_md

    assert c.atoms is not None
    # a small cell has no phonons to heat; repeat it to about 10 Å
    repeats = [max(1, math.ceil(10.0 / length)) for length in c.atoms.cell.lengths()]
    work = c.atoms.repeat(repeats)
    work.calc = calculator
    try:
        found = run_md(work, config.dynamics, out, overwrite=True)
    except Exception as error:  # as above
        return f"failed: {type(error).__name__}: {error}"
    return f"{config.md_steps} steps, {found.mean_temperature} K"
