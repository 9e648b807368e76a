"""Errors of property models on labeled crystals, as CSV.

    python benchmarks/property_heads.py --out heads.csv elastic_val.npz.xz runs/elastic/model

Columns: mean absolute error in what is learned (logarithms of moduli), share of errors within one
standard deviation, AUROC with which the deviation finds errors above three times the median, and
CPU time per crystal.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch

from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.properties.predictor import PropertyPredictor
from pet_calc.io.data.crystals import read_crystals


def auroc(score, positive):
    """Probability that a positive has the larger score."""
    ranks = np.argsort(np.argsort(score)) + 1
    n, m = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * m) if n and m else float("nan")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", type=Path)
parser.add_argument("models", type=Path, nargs="+")
parser.add_argument("--out", type=Path, required=True)
options = parser.parse_args()
torch.set_num_threads(1)
rows = []
for folder in options.models:
    network = load_property_model(folder)
    size = sum(p.numel() for p in network.parameters())
    for target in network.config.targets:
        if target.kind == "class":
            continue
        predictor = PropertyPredictor(target.name, folder)
        crystals = [c for c in read_crystals([options.data], [target.name]) if c.labels]
        begin = time.process_time()
        found = predictor.many([c.atoms for c in crystals])
        seconds = time.process_time() - begin
        truth = np.array([c.labels[target.name] for c in crystals])
        value, std = np.array([(p.value, p.std) for p in found]).T
        known = np.isfinite(value)
        truth, value, std = truth[known], value[known], std[known]
        error = np.abs(value - truth)
        if target.kind == "log10":
            error, std = np.abs(np.log10(value / truth)), std / value / np.log(10)
        far = error > 3 * np.median(error)
        rows.append([
            network.config.backbone, target.name, size, len(error), f"{error.mean():.4f}",
            f"{(error < std).mean():.3f}", f"{auroc(std, far):.3f}",
            f"{1e3 * seconds / len(crystals):.2f}",
        ])  # fmt: skip
columns = ("backbone", "property", "parameters", "crystals", "mae", "within_std", "auroc", "ms")
with options.out.open("w", newline="") as handle:
    csv.writer(handle).writerows([columns, *rows])
print(options.out.read_text())
