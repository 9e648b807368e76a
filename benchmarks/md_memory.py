"""Does the memory of a long simulation stay what it is? 10⁵ steps through the real driver.

    python benchmarks/md_memory.py --out benchmarks/results/md_memory.csv

Four copper atoms at 1 K (Langevin, 0.5 fs), kept apart by the ZBL repulsion, by a PET with random
weights that runs in milliseconds, with guards, trajectory, log and checkpoints as
`pet_calc.workflows.md.run_md` writes them by default. If `--minutes` do not suffice for all steps,
as many are made as fit, and the table says how many. Every hundredth of the run the resident
memory of the process and the number of living tensors are noted; the slope is that of a straight
line through the second half.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from pet_step import processor

from pet_calc import PETCalculator, __version__
from pet_calc.doctor.performance import status_bytes
from pet_calc.models.pet import PET, PETConfig
from pet_calc.workflows.md import MDConfig, Observer, run_md

PILOT = 300
"""Steps by which the speed is found out."""


def crystal() -> Atoms:
    """Atoms with a calculator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PET(
            PETConfig(
                elements=(29,), cutoff=3.0, d_pet=8, d_node=8, d_head=8, d_feedforward=8,
                num_heads=2, num_attention_layers=1, num_gnn_layers=1, zbl=True,
            )
        )  # fmt: skip
    model.energy_scale.fill_(1e-4)
    atoms = bulk("Cu", cubic=True)
    atoms.calc = PETCalculator(model)
    return atoms


def tensors() -> int:
    """Living tensors that the collector knows."""
    # not isinstance, which asks lazy modules for their class
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def run(steps: int, every: int) -> tuple[list[tuple[int, float, int]], float]:
    """Step, resident MB and tensors every so many steps of a run; and its seconds."""
    found: list[tuple[int, float, int]] = []

    def note(atoms: Atoms, sample: object) -> None:
        gc.collect()
        found.append((sample.step, status_bytes("VmRSS") / 1e6, tensors()))  # type: ignore[attr-defined]

    observer = Observer(note, every=every)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_md(crystal(), MDConfig(steps=steps, temperature=1.0), folder, observers=[observer])
    return found, time.perf_counter() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # notes take long, and would be a larger part of the time than in the run itself
    _, seconds = run(PILOT, PILOT)
    ctypes.CDLL(None).malloc_trim(0)
    steps = min(options.steps, int(60 * options.minutes / seconds * PILOT) // 100 * 100)
    print(f"{seconds / PILOT * 1e3:.2f} ms per step: {steps} of {options.steps} steps")
    found, seconds = run(steps, max(1, steps // 100))
    second = np.array([(step, mb) for step, mb, _ in found if step >= steps // 2])
    slope = float(np.polyfit(second[:, 0], second[:, 1], 1)[0])
    growth = second[-1, 1] - second[0, 1]
    print(f"resident memory {found[1][1]:.1f} MB after {found[1][0]} steps, {second[0, 1]:.1f} MB")
    print(f"half way, {second[-1, 1]:.1f} MB at the end: {growth:+.2f} MB in the second half")
    print(f"slope {1e6 * slope:+.1f} bytes per step; tensors {found[1][2]} -> {found[-1][2]}")
    if options.out is not None:
        constant = {
            "steps": steps,
            "seconds": round(seconds, 1),
            "slope_bytes_per_step": round(1e6 * slope, 2),
            "load_average": round(os.getloadavg()[0], 1),
            "processor": processor(),
            "pet_calc": __version__,
            "torch": torch.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "resident_MB", "tensors", *constant])
            for step, mb, count in found:
                writer.writerow([step, round(mb, 2), count, *constant.values()])


if __name__ == "__main__":
    main()
