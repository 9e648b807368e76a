"""Candidates before their relaxation: from which source, and whether they are in the window."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.generator import Generator
from pet_calc.crystals.generation.random_search import propose_random
from pet_calc.crystals.generation.substitution import propose_substituted
from pet_calc.errors import InvalidStructureError, PetCalcError
from pet_calc.io.models.files import write_atomically
from pet_calc.workflows.relax.symmetry import find_symmetry, space_group, symmetry_available

FILE = "proposals.json"


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate.

    Attributes
    ----------
    id : str
        Such as "NaCl-z2-random-003".
    source : str
    z : int
        Formula units.
    atoms : Atoms or None
        None if the source gave no crystal.
    objection : str
        Why it is not relaxed; empty if it is.
    space_group : str
        Of what the source gave, at the tolerance of the run.
    """

    id: str
    source: str
    z: int
    atoms: Atoms | None
    objection: str = ""
    space_group: str = ""


def propose(
    config: GenerateConfig,
    templates: Sequence[Atoms] | None = None,
    on_source: Callable[[str], None] | None = None,
) -> list[Proposal]:
    """All candidates of a run, by source and number of formula units."""
    generators = {
        s: Generator.load(s) for s in config.sources if s not in ("substitution", "random")
    }
    found: list[Proposal] = []
    chosen = () if config.formula else _chosen(config, generators)
    # what substitution lacks is shared by the sources that have no end
    sources = sorted(config.sources, key=lambda s: s != "substitution")
    for k, source in enumerate(sources):
        if on_source is not None:
            on_source(source)
        left = config.n - len(found)
        share = left // (len(sources) - k) if k < len(sources) - 1 else left
        if config.formula:
            placed = _placed(source, config, generators)
            shares = _shares(share, len(placed))
            made = [
                (c, i, atoms)
                for c, n in zip(placed, shares, strict=True)
                if n
                for i, atoms in enumerate(_from_source(source, c, n, config, generators, templates))
            ]
        else:
            made = _of_each(source, chosen[:share], config, generators, templates)
        for composition, i, atoms in made:
            z = composition.units
            identifier = f"{composition.formula}-z{z}-{Path(source).name}-{i:03d}"
            found.append(_checked(identifier, source, z, atoms, config))
    return found


def _chosen(config: GenerateConfig, generators: dict[str, Generator]) -> list[Composition]:
    """As many compositions as candidates are wanted, from the first generator that chooses."""
    able = [g for g in generators.values() if g.occupancy is not None]
    chooser = able[0] if able else next(iter(generators.values()))
    return chooser.compositions(
        config.n, seed=config.seed, elements=config.within or None, atoms=config.atoms or None
    )


def _of_each(
    source: str,
    compositions: Sequence[Composition],
    config: GenerateConfig,
    generators: dict[str, Generator],
    templates: Sequence[Atoms] | None,
) -> list[tuple[Composition, int, Atoms | Exception]]:
    """One proposal for each composition, where the source has one, with its index."""
    if source in generators:
        made = generators[source].sample(
            compositions, 1, seed=config.seed, sampler=config.sampler, window=config.window
        )
        return [(c, k, a) for k, (c, a) in enumerate(zip(compositions, made, strict=True))]
    return [
        (c, k, atoms)
        for k, c in enumerate(compositions)
        for atoms in _from_source(source, c, 1, config, generators, templates)
    ]


def _placed(
    source: str, config: GenerateConfig, generators: dict[str, Generator]
) -> tuple[Composition, ...]:
    """Compositions that a source is asked for.

    Cells larger than a generator has learnt are left to the sources that make them, if any.
    """
    if source not in generators:
        return config.compositions

    def others_make(c: Composition) -> bool:
        return any(s not in generators or generators[s].knows(c) for s in config.sources)

    knows = generators[source].knows
    return tuple(c for c in config.compositions if knows(c) or not others_make(c))


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (k < total % parts) for k in range(parts)]


def _from_source(
    source: str,
    composition: Composition,
    n: int,
    config: GenerateConfig,
    generators: dict[str, Generator],
    templates: Sequence[Atoms] | None,
) -> Sequence[Atoms | Exception]:
    # every source and cell has numbers of its own, whatever else is asked for
    seed = int(
        np.random.SeedSequence([config.seed, *composition.numbers.tolist()]).generate_state(1)[0]
    )
    try:
        if source == "substitution":
            return propose_substituted(composition, n, templates)
        if source == "random":
            return propose_random(composition, n, seed=seed, window=config.window)
        return generators[source].sample(
            composition, n, seed=seed, sampler=config.sampler, window=config.window
        )
    except (PetCalcError, ValueError) as error:
        return [error]


def _checked(
    identifier: str, source: str, z: int, atoms: Atoms | Exception, config: GenerateConfig
) -> Proposal:
    if isinstance(atoms, Exception):
        return Proposal(identifier, source, z, None, str(atoms))
    objection = config.window.objection(atoms)
    if objection:
        return Proposal(identifier, source, z, atoms, objection)
    group = space_group(atoms, config.symprec or 1e-2)
    if config.symprec and symmetry_available():
        symmetric = symmetrized(atoms, config.symprec)
        if not config.window.objection(symmetric):
            atoms = symmetric
    return Proposal(identifier, source, z, atoms, "", group)


def symmetrized(atoms: Atoms, symprec: float) -> Atoms:
    """A copy with the symmetry found within `symprec` Å imposed; as it is where there is none."""
    from ase.spacegroup.symmetrize import refine_symmetry

    result = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    try:
        if find_symmetry(result, symprec).number > 1:
            refine_symmetry(result, symprec=symprec)
    except (InvalidStructureError, ValueError, TypeError, IndexError):
        # near-degenerate tolerances: spglib finds a group, but not its standard cell
        return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    return result


def write_proposals(folder: Path, proposals: Sequence[Proposal]) -> None:
    """Keep all proposals, in full precision, for a resumed run."""
    rows = [
        {
            "id": p.id, "source": p.source, "z": p.z, "objection": p.objection,
            "space_group": p.space_group,
            "atoms": None if p.atoms is None else {
                "numbers": p.atoms.numbers.tolist(),
                "positions": p.atoms.positions.tolist(),
                "cell": p.atoms.cell.array.tolist(),
            },
        }
        for p in proposals
    ]  # fmt: skip
    write_atomically(folder / FILE, json.dumps(rows).encode())


def read_proposals(folder: Path) -> list[Proposal]:
    """What `write_proposals` wrote."""

    def atoms(values: dict[str, Any] | None) -> Atoms | None:
        return None if values is None else Atoms(pbc=True, **values)

    rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return [Proposal(**{**row, "atoms": atoms(row["atoms"])}) for row in rows]
