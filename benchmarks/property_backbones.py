"""All backbones of property models on the same crystals with the same CPU time, as CSV.

    python benchmarks/property_backbones.py DATA --seconds 240 --out property_backbones.csv

Two tasks: bulk and shear modulus (all of elastic_train, elastic_val), and formation energy and band
gap of `--crystals` crystals of mp_train (mp_val). The time of an epoch is measured on some
crystals first; the number of epochs is what fits into the budget, at least one. Graphs, which are
built once, are not counted. Columns: mean
absolute error on the crystals that were not trained on (moduli in log10 GPa), parameters, epochs,
CPU seconds per epoch, CPU milliseconds per predicted crystal.
"""

import argparse
import csv
import io
import lzma
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.properties.predictor import PropertyPredictor
from pet_calc.crystals.training.property_config import (
    PropertyData,
    PropertySchedule,
    PropertyTraining,
)
from pet_calc.crystals.training.property_loop import train_property
from pet_calc.io.data.crystals import read_crystals, read_table

#: About a hundred thousand parameters each.
BACKBONES = {
    "cgcnn": {"width": 64, "layers": 4},
    "matformer": {"width": 32, "layers": 3},
    "crysformer": {"width": 40, "layers": 2},
    "crystalformer": {"width": 40, "layers": 3, "heads": 4},
    "pet": {"width": 32, "layers": 2, "cutoff": 5.0},
}
TASKS = {
    "elastic": [
        {"name": "bulk_modulus", "unit": "GPa", "kind": "log10"},
        {"name": "shear_modulus", "unit": "GPa", "kind": "log10"},
    ],
    "mp": [
        {"name": "formation_energy", "unit": "eV/atom"},
        {"name": "band_gap", "unit": "eV"},
    ],
}
COLUMNS = (
    "task", "crystals", "backbone", "property", "mae", "parameters", "epochs", "epoch_s",
    "budget_s", "crystal_ms", "torch",
)  # fmt: skip


def subset(path, most, most_atoms, out, seed=0):
    """A table with at most so many crystals of at most so many atoms, drawn at random."""
    table = read_table(path)
    ends = np.cumsum(table["n_atoms"])
    small = np.nonzero(table["n_atoms"] <= most_atoms)[0]
    rows = np.sort(np.random.default_rng(seed).permutation(small)[:most])
    atoms = np.concatenate([np.arange(ends[r] - table["n_atoms"][r], ends[r]) for r in rows])
    per_atom = {"numbers", "frac"}
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v[atoms if k in per_atom else rows] for k, v in table.items()})
    out.write_bytes(lzma.compress(buffer.getvalue(), preset=0))
    return len(rows)


def train(config, folder, data):
    """CPU seconds of the fastest epoch, graphs not counted; the first one loads code."""
    times = [time.process_time()]
    train_property(
        config,
        folder,
        data,
        report=lambda r: times.append(time.process_time()),
        on_graph=lambda: times.__setitem__(0, time.process_time()),
    )
    return float(np.diff(times).min())


def measured(name, task, budget, data, files, scratch):
    """Rows of the table for one backbone and one task."""
    schedule = PropertySchedule(epochs=3, batch_size=64, learning_rate=2e-3, average_epochs=1)
    values = {"backbone": name, "hidden": 64, "targets": TASKS[task], "options": BACKBONES[name]}
    config = PropertyTraining(f"{name}-{task}", values, PropertyData(*files), schedule)
    few = subset(data / files[0][0], 256, 10**9, scratch / "few.npz.xz")
    trial = replace(config, data=PropertyData(("few.npz.xz",), ("few.npz.xz",)))
    seconds = train(trial, scratch / f"{name}-{task}-trial", data)
    one = seconds * len(read_table(data / files[0][0])["n_atoms"]) / few
    epochs = max(1, int(budget / one))
    schedule = replace(
        schedule,
        epochs=epochs,
        average_epochs=max(1, epochs // 8),
        frozen_epochs=epochs // 5,
    )
    folder = scratch / f"{name}-{task}"
    seconds = train(replace(config, schedule=schedule), folder, data)
    model = folder / "model"
    size = sum(p.numel() for p in load_property_model(model).parameters())
    found = []
    for target in TASKS[task]:
        crystals = read_crystals([data / f for f in files[1]], [target["name"]])
        predictor = PropertyPredictor(target["name"], model)
        begin = time.process_time()
        answers = predictor.many([c.atoms for c in crystals])
        each = (time.process_time() - begin) / len(crystals)
        value = np.array([a.value for a in answers])
        truth = np.array([c.labels[target["name"]] for c in crystals])
        error = np.log10(value / truth) if target.get("kind") == "log10" else value - truth
        found.append(
            [name, target["name"], f"{np.nanmean(np.abs(error)):.4f}", size, epochs,
             f"{seconds:.2f}", budget, f"{1e3 * each:.2f}", torch.__version__]
        )  # fmt: skip
    return found


def main():
    """Train all, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the crystals")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="of CPU time for each training"
    )
    parser.add_argument("--crystals", type=int, default=5000, help="of mp_train")
    parser.add_argument("--atoms", type=int, default=30, help="largest cell of these")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, options.out.open("w", newline="") as handle:
        scratch = Path(name)
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for task in options.tasks:
            most = options.crystals if task == "mp" else 10**9
            atoms = options.atoms if task == "mp" else 10**9
            files = [(f"{task}_{part}.npz.xz",) for part in ("train", "val")]
            sizes = [
                subset(options.data / f, most if k == 0 else 1000, atoms, scratch / f)
                for k, (f,) in enumerate(files)
            ]
            for backbone in options.backbones:
                for row in measured(backbone, task, options.seconds, scratch, files, scratch):
                    writer.writerow([task, sizes[0], *row])
                    print(task, *row, flush=True)
                handle.flush()


if __name__ == "__main__":
    main()
