"""What angles in the attention cost, and what they are worth beside vectors and frames.

    python benchmarks/angular_attention.py --data DATA --out FILE.csv

Four networks of one size, which differ in how they know directions: by unit vectors in the tokens
("vectors", symmetric as far as random rotations in training teach it), the same in local frames
("frames", layerwise ECSE, exact), not at all beyond distances ("distances", exact), and by angles
in the attention ("angles", exact).

Cost: CPU time of one thread for energy, forces and stress, and for a step of training, of 64
molecules of water and of 54 atoms of a disordered bcc alloy, relative to "vectors" in the same
process; best of several.

Worth (with --data, the folder that holds water/): error of the forces on the test frames of
liquid water after the same number of steps of one frame each, from the same seed, with a rate
that falls to its end.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from alloy_potential import random_alloy
from ase import Atoms
from pet_step import cpu_time, processor

from pet_calc import __version__
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.models.ecse import FrameConfig
from pet_calc.models.pet import PET, PETConfig
from pet_calc.neighbors import neighbor_list
from pet_calc.training.potentials.config import (
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from pet_calc.training.potentials.loop import train
from pet_calc.training.potentials.splits import load_data
from pet_calc.workflows.water_box import water_box

BASE = PETConfig(
    elements=(1, 8), cutoff=3.5, cutoff_width=2.5, d_pet=64, d_node=128, d_head=64,
    d_feedforward=128, num_heads=4, num_attention_layers=1, input_encoding="radial",
)  # fmt: skip
FRAMES = FrameConfig(num_prunings=1, pruning_threshold=0.6, pruning_width=0.8, taper=0.4)
KINDS: dict[str, dict[str, object]] = {
    "vectors": {},
    "frames": {"ecse": "layerwise", "frames": FRAMES},
    "distances": {"input_encoding": "distance"},
    "angles": {"input_encoding": "distance", "angular_degree": 4},
}


def alloy() -> Atoms:
    """54 atoms of bcc NbMoTaW, displaced as by heat."""
    atoms = random_alloy(3.24)
    atoms.rattle(0.15, seed=0)
    return atoms


SYSTEMS: dict[str, tuple[Atoms, dict[str, object]]] = {
    "water": (water_box(64, seed=0), {}),
    "NbMoTaW": (alloy(), {"elements": (41, 42, 73, 74), "cutoff": 5.0, "cutoff_width": 3.0}),
}


def best(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU time of each function, in turns."""
    found = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats + 1):
        for name, function in functions.items():
            found[name] = min(found[name], cpu_time(function))
    return found


def costs(repeats: int) -> list[dict[str, object]]:
    """Seconds of each network on each system."""
    rows: list[dict[str, object]] = []
    for name, (atoms, changes) in SYSTEMS.items():
        system = system_from_atoms(atoms)
        models = {k: PET(replace(BASE, **(changes | v))) for k, v in KINDS.items()}  # type: ignore[arg-type]
        edges = neighbor_list(system, models["vectors"].cutoff)

        def step(model: PET, edges=edges, system=system) -> None:  # type: ignore[no-untyped-def]
            found = evaluate(model, system, edges, create_graph=True)
            assert found.forces is not None
            (found.forces.square().sum() + found.energy.square().sum()).backward()

        def forces(model: PET, edges=edges, system=system) -> None:  # type: ignore[no-untyped-def]
            evaluate(model, system, edges)

        training = best({k: lambda m=m: step(m) for k, m in models.items()}, repeats)  # type: ignore[misc]
        frozen = {k: m.requires_grad_(False) for k, m in models.items()}
        running = best({k: lambda m=m: forces(m) for k, m in frozen.items()}, repeats)  # type: ignore[misc]
        for kind in KINDS:
            rows.append({
                "system": name, "atoms": len(atoms), "kind": kind,
                "forces_s": f"{running[kind]:.4f}",
                "forces_x": f"{running[kind] / running['vectors']:.2f}",
                "training_s": f"{training[kind]:.4f}",
                "training_x": f"{training[kind] / training['vectors']:.2f}",
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def learned(kind: str, data: Path, steps: int) -> dict[str, object]:
    """Error of the forces of water after a short training."""
    config = TrainConfig(
        name=kind,
        model=replace(BASE, **KINDS[kind]),  # type: ignore[arg-type]
        data=DataConfig(
            train=("water/train.extxyz.xz",), test=("water/test.extxyz.xz",), validation_frames=4
        ),
        optimizer=OptimizerConfig(
            name="soap", betas=(0.95, 0.95), precondition_interval=5, gradient_clip=1.0,
            ema_decay=0.98,
        ),
        stages=(
            StageConfig(
                steps=steps, learning_rate=4e-3, final_learning_rate=1e-4, warmup_steps=20,
                loss=LossConfig(energy=20.0, forces=1.0),
                frames="all" if kind == "frames" else "sampled",
            ),
        ),
        augment=kind == "vectors",
        validation_interval=steps,
        seed=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        found = train(config, Path(folder), load_data(config, data))
        seconds = time.process_time() - start
    assert found is not None
    test = found["test"]
    row: dict[str, object] = {
        "kind": kind, "steps": steps, "cpu_s": f"{seconds:.0f}",
        "force_rmse_meV_A": f"{test.forces.rmse:.1f}",
        "energy_mae_meV_atom": f"{test.energy.mae:.2f}",
    }  # fmt: skip
    print(row, flush=True)
    return row


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds water/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--worth-alone", action="store_true", help="without the costs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [] if options.worth_alone else costs(options.repeats)
    if options.data is not None:
        rows += [learned(kind, options.data, options.steps) for kind in options.kinds]
    provenance = {
        "date": datetime.now(UTC).date().isoformat(), "processor": processor(), "threads": 1,
        "dtype": "float32", "torch": torch.__version__, "pet_calc": __version__,
    }  # fmt: skip
    names = list(dict.fromkeys(name for row in rows for name in row))
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, *provenance], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | provenance for row in rows)


if __name__ == "__main__":
    main()
