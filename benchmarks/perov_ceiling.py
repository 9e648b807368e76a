"""How many of the crystals of Perov-5 one sample per composition can find again.

``python benchmarks/perov_ceiling.py DATA`` (needs pymatgen). Of ABX3 the data has two crystals with
A and B exchanged, and the composition does not tell them apart. A generator that knows both
perfectly and proposes one of them finds the reference if it is that one, or if the two match each
other: 1/2 + 1/2 p(match). The pairs whose two crystals are in the two parts at hand are counted.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from generators.matching import Matcher

from pet_calc.crystals.diffusion.unimat import Crystal
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.io.unimat import atoms_from_crystal, read_crystals


def main() -> None:
    """Count, compare the pairs, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the crystals")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/perov_ceiling.csv"))
    options = parser.parse_args()
    found: dict[Composition, list[Crystal]] = {}
    for part in ("val", "test"):
        for crystal in read_crystals(options.data / f"perov_5_{part}.npz.xz"):
            found.setdefault(Composition.from_numbers(crystal.numbers), []).append(crystal)
    matcher = Matcher()
    pairs = [group for group in found.values() if len(group) == 2]
    same = sum(
        matcher.rms(*(atoms_from_crystal(c) for c in pair)) is not None for pair in pairs
    ) / len(pairs)
    row = {
        "crystals": sum(map(len, found.values())),
        "compositions": len(found),
        "most_of_one_composition": max(map(len, found.values())),
        "pairs": len(pairs),
        "pairs_that_match": f"{same:.4f}",
        "ceiling_of_one_sample": f"{0.5 + 0.5 * same:.4f}",
        "matching": matcher.label,
    }
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
