"""Crystals found again by a generator and by random search, at equal numbers of proposals.

``python benchmarks/crystal_generation.py DATA --generator unimat-mp`` draws crystals of at most 12
atoms from ``mp20like_val.npz.xz``, proposes 20 of each composition by both sources and writes the
match rates before the relaxation; with ``--calculator`` (or ``--model``) all proposals are relaxed
and the match rate, RMSD, energy drop, P1 fraction and S.U.N. on the hull of ``hull_mp.npz.xz``,
whose competitors are relaxed by the same potential, are written beside them. With ``--free`` the
generator chooses the compositions. Needs pymatgen (``--no-match``: without) and, for ``--smact``,
SMACT; see `generators`.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from generators.comparison import Comparison, ComparisonConfig, compare
from generators.matching import Matcher

from pet_calc.cli.options import Potential
from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.generation import Generator
from pet_calc.crystals.io.unimat import read_crystals
from pet_calc.workflows.relax import RelaxConfig


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the crystals")
    parser.add_argument("--generator", default="unimat-mp", help="name, folder, or random")
    parser.add_argument("--references", default="mp20like_val.npz.xz")
    parser.add_argument("--train", default="mp20like_train.npz.xz", help="known crystals")
    parser.add_argument("--compositions", type=int, default=100)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--atoms", type=int, default=12, help="largest cell")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sampler-steps", type=int, default=100)
    parser.add_argument("--attempts", type=int, default=3, help="1: no proposal is drawn again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--free", action="store_true", help="the generator chooses compositions")
    parser.add_argument("--smact", action="store_true", help="validity of the compositions")
    parser.add_argument("--no-match", action="store_true", help="no match rate, without pymatgen")
    parser.add_argument("--model", help="name or folder of a potential, to relax with")
    parser.add_argument("--calculator", help="module:factory of another ASE calculator")
    parser.add_argument("--competitors", default="hull_mp.npz.xz", help="'' for none")
    parser.add_argument("--steps", type=int, default=200, help="most steps of a relaxation")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/unimat_mp.csv"))
    options = parser.parse_args(arguments)
    if options.free and options.generator == "random":
        parser.error("random search is given its compositions; --free needs a generator")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write the table."""
    options = options_of(arguments)
    torch.set_num_threads(1)
    matcher = None if options.no_match else Matcher()
    found = compared(options, matcher)
    print()
    relaxed = [asdict(s) for s in found.relaxed] or [{}] * len(found.proposed)
    rows = []
    for measures, after in zip(found.proposed, relaxed, strict=True):
        row = asdict(measures) | {f"relaxed_{k}": v for k, v in after.items() if k != "source"}
        row |= {"attempts": options.attempts, "guidance": options.guidance}
        row |= {"matching": matcher.label if matcher else "", "torch": version("torch")}
        row["calculator"] = options.model or options.calculator or ""
        rows.append(row)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: shown(v) for k, v in row.items()})
    for row in rows:
        print({k: shown(v) for k, v in row.items()})
    for note in found.notes:
        print(note)


def compared(options: argparse.Namespace, matcher: Matcher | None) -> Comparison:
    """The generator beside random search."""
    crystals = [c for c in read_crystals(options.data / options.references)
                if len(c.numbers) <= options.atoms]  # fmt: skip
    draw = np.random.default_rng(options.seed).permutation(len(crystals))[: options.compositions]
    calculator = None
    rivals, known = [], []
    if options.model or options.calculator:
        calculator = Potential(options.model or "auto", options.calculator).load("float32")
        known = read_crystals(options.data / options.train)
        if options.competitors:
            rivals = read_crystals(options.data / options.competitors)
    return compare(
        None if options.generator == "random" else Generator.load(options.generator),
        [crystals[k] for k in sorted(draw.tolist())],
        ComparisonConfig(
            n=options.n,
            seed=options.seed,
            sampler=SamplerConfig(steps=options.sampler_steps, guidance=options.guidance),
            attempts=options.attempts,
            smact=options.smact,
            free=options.free,
            relax=RelaxConfig(cell="free", fmax=0.05, steps=options.steps, seconds=300.0),
        ),
        matcher=matcher,
        calculator=calculator,
        rivals=rivals,
        known=known,
        on_progress=lambda stage, done, total: print(f"\r{stage} {done}/{total}  ", end=""),
    )


def shown(value: object) -> object:
    """Four digits are enough; what was not measured is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return value


if __name__ == "__main__":
    main()
