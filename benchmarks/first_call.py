"""How much slower is the first call than the others? Nothing is compiled in it.

    python benchmarks/first_call.py --out benchmarks/results/first_call.csv

Each potential in a fresh process, on 64 water molecules or 128 atoms of an alloy, one thread,
processor time in seconds: the import of the package, the calculator, the first energy and forces,
and the best of `--repeats` later ones. "modules" counts those that the first evaluation imports.
The bar: the first one takes at most 2 s more than later ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

BAR = 2.0


def measure(potential: str, repeats: int) -> dict[str, object]:
    """One row; nothing of the package is imported before."""
    marks = [time.process_time()]
    from pet_calc import load_calculator

    marks.append(time.process_time())
    calculator = load_calculator(potential)
    marks.append(time.process_time())
    from pet_step import cpu_time, processor
    from potential_speed import structure

    from pet_calc import __version__
    from pet_calc.pretrained import list_potentials

    entry = next(e for e in list_potentials() if e.name == potential)
    name, atoms = structure(entry)
    atoms.calc = calculator

    def step() -> None:
        atoms.positions += 1e-3
        atoms.get_forces()

    import torch

    torch.set_num_threads(1)
    modules = len(sys.modules)
    first = cpu_time(step)
    imported = len(sys.modules) - modules
    steady = min(cpu_time(step) for _ in range(repeats))
    return {
        "potential": potential,
        "structure": name,
        "import_s": round(marks[1] - marks[0], 3),
        "calculator_s": round(marks[2] - marks[1], 3),
        "first_s": round(first, 3),
        "steady_s": round(steady, 4),
        "first_minus_steady_s": round(first - steady, 3),
        "modules": imported,
        "load_average": round(os.getloadavg()[0], 1),
        "processor": processor(),
        "pet_calc": __version__,
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--potential", action="append")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.potential or ["pet-water-v1", "pet-water-v4", "crystalformer-nbmotaw-v2"]
    if options.measure:
        print(json.dumps(measure(names[0], options.repeats)))
        return
    rows = []
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--measure", "--potential", name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        row = rows[-1]
        verdict = "within" if row["first_minus_steady_s"] <= BAR else "above"
        print(*(f"{k} {row[k]}" for k in list(row)[:8]), f"{verdict} the bar", flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
