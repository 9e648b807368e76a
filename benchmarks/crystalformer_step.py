"""A Crystalformer step: its growth with the number of atoms, and the dense form beside it.

    python benchmarks/crystalformer_step.py --out benchmarks/results/crystalformer_step.csv

Energy and its gradient on positions (forward and backward pass) of rattled rock salt, published
size (d = 128, 8 heads, 4 blocks, 64 radial functions). "edges" is the smooth form: one edge for
each image within the cutoff. "dense" is the published arithmetic on the same weights: for every
pair of atoms sums over the 125 images of a fixed box, of weights and of encoded distances, then
attention over pairs. Both run in the same process, one thread, and take turns; the least processor
time of several repetitions counts. Memory is the growth of the process's peak, each size and form
in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pet_calc import __version__
from pet_calc.geometry import System
from pet_calc.models import evaluate
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.crystalformer.attention import width_factor
from pet_calc.neighbors import neighbor_list

SIZES = {8: (1, 2, 2), 16: (2, 2, 2), 32: (2, 2, 4), 64: (2, 4, 4), 128: (4, 4, 4)}
"""Atoms: repetitions of the primitive cell of rock salt."""
DENSE_UP_TO = 32
BAR = 10.0
"""How many times faster the edges have to be at 32 atoms."""


def crystal(n_atoms: int) -> System:
    """Rattled rock salt."""
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(SIZES[n_atoms])
    atoms.positions += 0.05 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    return System.single(
        torch.from_numpy(atoms.positions.copy()),
        torch.from_numpy(atoms.numbers.astype("int64")),
        torch.from_numpy(atoms.cell.array.copy()),
        (True, True, True),
    )


def dense_energy(model: Crystalformer, system: System, positions: Tensor) -> Tensor:
    """Energy by the published arithmetic: sums over images of each pair, then attention."""
    n = system.n_atoms
    steps = torch.arange(-2, 3)
    lattice = torch.cartesian_prod(steps, steps, steps).to(positions.dtype) @ system.cell[0]
    square = (positions[None, :, None] - positions[:, None, None] + lattice).square().sum(-1)
    square = square.to(model.dtype)
    apart = square > 0
    r = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
    spacing = model.config.radial_max / model.config.num_radial
    basis = torch.exp(-0.5 / spacing**2 * (r[..., None] - model.radial_centers.to(r.dtype)) ** 2)
    x = model.embedding(model.species(system.numbers))
    for block in model.blocks:
        a = block.attention
        q, k, v = a.projection(x).view(n, 3, model.config.num_heads, -1).unbind(1)
        rho = width_factor(a.standardized(q), model.config)
        falloff = rho * a.neutral_falloff.to(x.dtype)
        phi = -falloff[:, :, None, None] * square[:, None]  # (n, heads, n, images)
        alpha = torch.logsumexp(phi, -1)
        inner = torch.einsum("ihjm,ijmk->ihjk", torch.softmax(phi, -1), basis)
        beta = torch.einsum("ihjk,hdk->ihjd", inner, a.value_encoding)
        logits = torch.einsum("ihd,jhd->ihj", q, k) * q.shape[-1] ** -0.5 + alpha
        p = torch.softmax(logits, -1)
        y = torch.einsum("ihj,jhd->ihd", p, v) + torch.einsum("ihj,ihjd->ihd", p, beta)
        x = x + a.output(y.reshape(n, -1))
        x = x + block.linear2(block.activation(block.linear1(x)))
    return model.head(x).sum()


def make_model(cutoff: float) -> Crystalformer:
    """Published size, fixed weights."""
    config = CrystalformerConfig(elements=(11, 17), cutoff=cutoff, cutoff_width=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Crystalformer(config).requires_grad_(False)


def step(form: str, model: Crystalformer, system: System) -> Callable[[], Tensor]:
    """A forward and backward pass, neighbor list included, as a function that gives forces."""

    def edges() -> Tensor:
        results = evaluate(model, system, neighbor_list(system, model.cutoff))
        assert results.forces is not None
        return results.forces

    def dense() -> Tensor:
        positions = system.positions.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(dense_energy(model, system, positions), positions)
        return -gradient

    return edges if form == "edges" else dense


def status(name: str) -> float:
    """A figure of this process from /proc in MB: "VmRSS" or its peak "VmHWM"."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}; memory is measured on Linux only")


def memory(form: str, n_atoms: int, cutoff: float) -> float:
    """Growth of the peak memory by a step, in MB, in a process of its own."""
    command = [sys.executable, __file__, "--memory", form, str(n_atoms), "--cutoff", str(cutoff)]
    # freed memory goes back to the system at once, so that the peak is that of the step
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | allocator
    )
    return float(out.stdout)


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(cutoff: float, repeats: int) -> list[dict[str, object]]:
    """One row per size."""
    model = make_model(cutoff)
    rows: list[dict[str, object]] = []
    for n_atoms in SIZES:
        system = crystal(n_atoms)
        forms = ["edges", "dense"] if n_atoms <= DENSE_UP_TO else ["edges"]
        steps = {form: step(form, model, system) for form in forms}
        best = dict.fromkeys(forms, float("inf"))
        forces = {form: steps[form]() for form in forms}
        for _ in range(repeats):
            for form in forms:
                start = time.process_time()
                steps[form]()
                best[form] = min(best[form], time.process_time() - start)
        rows.append({
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "version": __version__,
            "torch": torch.__version__,
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 1),
            "dtype": "float32",
            "cutoff_A": cutoff,
            "n_atoms": n_atoms,
            "images_per_atom": round(neighbor_list(system, cutoff).n_edges / n_atoms, 1),
            "repeats": repeats,
            "edges_s": round(best["edges"], 5),
            "edges_ms_per_atom": round(1e3 * best["edges"] / n_atoms, 3),
            "edges_MB": round(memory("edges", n_atoms, cutoff), 1),
            "dense_s": round(best["dense"], 5) if "dense" in best else "",
            "dense_MB": round(memory("dense", n_atoms, cutoff), 1) if "dense" in best else "",
            "dense_over_edges": round(best["dense"] / best["edges"], 1) if "dense" in best else "",
            "largest_force_difference": (
                f"{float((forces['edges'] - forces['dense']).abs().max()):.1e}"
                if "dense" in best
                else ""
            ),
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutoff", type=float, default=7.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", nargs=2, metavar=("FORM", "ATOMS"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        form, n = options.memory[0], int(options.memory[1])
        run = step(form, make_model(options.cutoff), crystal(n))
        step("edges", make_model(options.cutoff), crystal(8))()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        run()
        print(status("VmHWM") - before)
        return
    rows = measure(options.cutoff, options.repeats)
    table = Table(title="Crystalformer: energy and forces, one thread")
    shown = ("n_atoms", "images_per_atom", "edges_s", "edges_ms_per_atom", "edges_MB", "dense_s",
             "dense_MB", "dense_over_edges", "largest_force_difference")  # fmt: skip
    for name in shown:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    Console(width=150).print(table)
    at_32 = float(str(next(r for r in rows if r["n_atoms"] == 32)["dense_over_edges"]))
    verdict = "reached" if at_32 >= BAR else "missed"
    print(f"at 32 atoms {at_32} times faster than the dense form; {BAR:g} wanted: {verdict}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
