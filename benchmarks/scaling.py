r"""How time and memory grow with the number of atoms: 10² to 10⁵ of water, one thread.

    python benchmarks/scaling.py --potential pet-water-v4 \
        --out benchmarks/results/scaling.csv --figure docs/scaling.png

Energy, forces and stress through the ASE calculator of a shipped potential, neighbor list
included. The boxes are repetitions of one of 66 molecules (33 for the smallest), so that the
environments are the same at every size. Each size runs in a process of its own. "first_s" is the
wall time of the first evaluation; "cpu_s" the processor time of the best of all evaluations, those
below 10,000 atoms are made `--repeats` times after the first. "memory_MB" is what the evaluations
add to the process at their peak, "peak_MB" the whole process. Above some size activations are
computed a second time in the backward pass instead of being kept.

Rows of other potentials and sizes in the file stay, so that sizes can be added one by one:

    python benchmarks/scaling.py --repeat 8,8,8 --out benchmarks/results/scaling.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from ase import Atoms
from matplotlib.figure import Figure
from pet_step import cpu_time, processor

from pet_calc import __version__, load_calculator
from pet_calc.workflows.water_box import water_box

REPEATS = ("0,0,0", "1,1,1", "2,1,1", "2,2,2", "4,2,2", "4,4,2", "4,4,4", "8,4,4", "8,8,4", "8,8,8")
BAR = 24_000.0
"""Memory in MB in which 100,000 atoms have to fit."""


def box(repeat: Sequence[int]) -> Atoms:
    """Water: 33 molecules, or some repetitions of 66."""
    return water_box(66, seed=0).repeat(repeat) if any(repeat) else water_box(33, seed=0)


def peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(potential: str, repeat: Sequence[int], repeats: int) -> dict[str, object]:
    """One row."""
    torch.set_num_threads(1)
    calculator = load_calculator(potential)
    small = box((0, 0, 0))
    small.calc = calculator
    small.get_forces()  # what is loaded once is not what an evaluation takes
    atoms = box(repeat)
    before = peak()
    times: list[float] = []
    began = time.perf_counter()

    def step() -> None:
        calculator.results.clear()
        calculator.evaluate(atoms)

    times.append(cpu_time(step))
    first = time.perf_counter() - began
    top = peak()
    times += [cpu_time(step) for _ in range(repeats if len(atoms) < 10_000 else 0)]
    best = min(times)
    return {
        "potential": potential,
        "n_atoms": len(atoms),
        "cpu_s": round(best, 4),
        "cpu_us_per_atom": round(1e6 * best / len(atoms), 1),
        "first_s": round(first, 3),
        "evaluations": len(times),
        "memory_MB": round(top - before),
        "memory_kB_per_atom": round(1e3 * (top - before) / len(atoms), 1),
        "peak_MB": round(top),
        "dtype": "float32",
        "threads": 1,
        "load_average": round(os.getloadavg()[0], 1),
        "processor": processor(),
        "pet_calc": __version__,
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def in_a_process(potential: str, repeat: str, repeats: int) -> dict[str, object]:
    """As `measure`, in a process whose peak is its own."""
    words = ["--potential", potential, "--repeat", repeat, "--repeats", str(repeats), "--measure"]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a file; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Rows by potential and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda r: (str(r["potential"]), int(str(r["n_atoms"]))))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ordered[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)


def figure(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Time per atom, and memory, over the number of atoms."""
    chart = Figure(figsize=(9.0, 3.6), layout="constrained")
    times, memory = chart.subplots(1, 2)
    for name in dict.fromkeys(r["potential"] for r in rows):
        mine = [r for r in rows if r["potential"] == name]
        atoms = [int(r["n_atoms"]) for r in mine]
        times.plot(atoms, [float(r["cpu_us_per_atom"]) for r in mine], "o-", label=name)
        memory.plot(atoms, [float(r["peak_MB"]) / 1e3 for r in mine], "o-", label=name)
    times.set(xscale="log", yscale="log", xlabel="atoms", ylabel="CPU time per atom, µs")
    memory.set(xscale="log", yscale="log", xlabel="atoms", ylabel="peak memory of the process, GB")
    memory.axhline(BAR / 1e3, color="0.4", ls="--", lw=1.0)
    memory.annotate("24 GB", (100, BAR / 1e3), xytext=(0, -12), textcoords="offset points")
    for ax in (times, memory):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.9", lw=0.6)
    times.set_ylim(0.5 * times.dataLim.ymin, 2.0 * times.dataLim.ymax)
    memory.set_ylim(0.1, 50.0)
    times.legend(frameon=False)
    chart.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--potential", action="append", help="several times for several")
    parser.add_argument("--repeat", action="append", help="of the box, as 4,4,2; 0,0,0 is smaller")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    potentials = options.potential or ["pet-water-v1", "pet-water-v4"]
    repeats = options.repeat or list(REPEATS)
    if options.measure:
        counts = [int(n) for n in repeats[0].split(",")]
        print(json.dumps(measure(potentials[0], counts, options.repeats)))
        return
    rows: list[dict[str, object]] = []
    if options.out is not None:
        rows = [dict(r) for r in read(options.out)]
    for potential in potentials:
        for repeat in repeats:
            row = in_a_process(potential, repeat, options.repeats)
            print(*(f"{k} {row[k]}" for k in list(row)[:9]), flush=True)
            key = (row["potential"], str(row["n_atoms"]))
            rows = [r for r in rows if (r["potential"], str(r["n_atoms"])) != key] + [row]
            if options.out is not None:
                write(options.out, rows)
    if options.figure is not None:
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        figure([{k: str(v) for k, v in r.items()} for r in rows], options.figure)


if __name__ == "__main__":
    main()
