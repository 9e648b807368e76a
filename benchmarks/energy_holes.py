"""Random crystals that a potential finds too low in energy, with the least energy they can have.

    python benchmarks/energy_holes.py DATA/crystals --model pet-general-v5 --out holes.extxyz.xz

Random crystals of compositions of mp_train are relaxed with the potential. No crystal lies below
the convex hull of DFT's formation energies (mp_train and hull_mp), so that one which does is a
hole of the potential. Printed: how many are below the hull by how much. Written: the relaxed
crystals below the hull plus a margin, with an ``energy_floor`` in eV, from which a training learns
that their energies are no lower: that of the hull, and ``--unknown`` more for crystals that are
none of mp_train's, whose stable phases are nearly all known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io import write
from generators.stability import SAME

from pet_calc import PETCalculator
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.fingerprint import Fingerprint, distance, fingerprint
from pet_calc.crystals.generation.hull import Hull, Phase
from pet_calc.crystals.generation.random_search import propose_random
from pet_calc.crystals.generation.relaxation import relax_proposals
from pet_calc.errors import SimulationError
from pet_calc.io.data.crystals import LabeledCrystal, read_crystals
from pet_calc.pretrained import resolve
from pet_calc.workflows.relax import RelaxConfig

ENERGY = "formation_energy"


def composition_of(atoms: Atoms) -> Composition:
    """Its ``formula`` is the same for cells of any size."""
    return Composition.from_numbers(np.asarray(atoms.numbers))


def phases_of(crystals: list[LabeledCrystal]) -> dict[frozenset[int], list[Phase]]:
    """Lowest energy of each composition, by elements."""
    lowest: dict[str, Phase] = {}
    for c in crystals:
        phase = Phase(composition_of(c.atoms), c.labels[ENERGY])
        formula = phase.composition.formula
        if formula not in lowest or phase.energy < lowest[formula].energy:
            lowest[formula] = phase
    found: dict[frozenset[int], list[Phase]] = {}
    for phase in lowest.values():
        elements = frozenset(z for z, _ in phase.composition.counts)
        if len(elements) > 1:
            found.setdefault(elements, []).append(phase)
    return found


def hull_energy(composition: Composition, phases: dict[frozenset[int], list[Phase]]) -> float:
    """eV/atom of the hull; elements are at zero."""
    elements = frozenset(z for z, _ in composition.counts)
    inside = [p for subset, group in phases.items() if subset <= elements for p in group]
    lone = [Phase(Composition.of(chemical_symbols[z]), 0.0) for z in elements]
    return -Hull(tuple(lone + inside)).above(composition, 0.0).energy


def main() -> None:
    """Search, relax, count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the crystals")
    parser.add_argument("--model", default="pet-general")
    parser.add_argument("--compositions", type=int, default=700)
    parser.add_argument("--n", type=int, default=3, help="crystals of each")
    parser.add_argument("--atoms", type=int, default=10, help="largest cell")
    parser.add_argument("--steps", type=int, default=60, help="most steps of a relaxation")
    parser.add_argument("--margin", type=float, default=0.2, help="eV/atom above the hull")
    parser.add_argument("--unknown", type=float, default=0.03, help="eV/atom above the hull")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    calculator = PETCalculator(options.model)
    covered = {atomic_numbers[e] for e in resolve(options.model).elements}
    known = read_crystals([options.data / "mp_train.npz.xz"], [ENERGY])
    phases = phases_of([*known, *read_crystals([options.data / "hull_mp.npz.xz"], [ENERGY])])
    wanted = sorted(
        {
            composition_of(c.atoms)
            for c in known
            if len(c.atoms) <= options.atoms and set(c.atoms.numbers.tolist()) <= covered
        },
        key=lambda c: c.counts,
    )
    draw = np.random.default_rng(options.seed).permutation(len(wanted))[: options.compositions]
    proposals: list[Atoms] = []
    floors: list[float] = []
    for k in draw:
        try:
            found = propose_random(wanted[k], options.n, seed=options.seed)
        except SimulationError as error:
            print(f"left out: {error}")
            continue
        proposals += found
        floors += [hull_energy(wanted[k], phases)] * len(found)
    config = RelaxConfig(cell="free", fmax=0.1, steps=options.steps)
    outcomes = relax_proposals(
        proposals, calculator, config,
        on_result=lambda k, o: print(f"\r{k}/{len(proposals)} ", end="", flush=True),
    )  # fmt: skip
    above, kept = [], []
    structures: dict[str, list[Fingerprint]] = {composition_of(a).formula: [] for a in proposals}
    for c in known:
        if (formula := composition_of(c.atoms).formula) in structures:
            structures[formula].append(fingerprint(c.atoms))
    for floor, outcome in zip(floors, outcomes, strict=True):
        if outcome.atoms is None or outcome.status not in ("converged", "steps"):
            continue
        n = len(outcome.atoms)
        above.append(outcome.energy / n - floor)
        if above[-1] < options.margin:
            hole = Atoms(
                outcome.atoms.numbers, outcome.atoms.positions, cell=outcome.atoms.cell, pbc=True
            )
            own = fingerprint(hole)
            same = structures[composition_of(hole).formula]
            unknown = all(distance(own, f) >= SAME for f in same)
            hole.info["energy_floor"] = (floor + options.unknown * unknown) * n
            kept.append(hole)
    height = np.array(above)
    print(f"\n{len(proposals)} random crystals, {len(height)} relaxed by {options.model}")
    for depth in (0.0, 0.05, 0.1, 0.2, 0.5):
        print(f"more than {depth:.2f} eV/atom below the hull: {np.mean(height < -depth):.3f}")
    print(f"median above the hull: {np.median(height):.3f} eV/atom")
    if options.out is not None:
        write(options.out, kept, format="extxyz")
        print(f"{len(kept)} less than {options.margin} eV/atom above the hull: {options.out}")


if __name__ == "__main__":
    main()
