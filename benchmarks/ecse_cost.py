"""What exact symmetry costs: time, memory and residual error against the plain model.

    python benchmarks/ecse_cost.py --out benchmarks/results/ecse_cost.csv

Energy, forces and stress in float32 of PET models of width 64 with random weights, the same ones
plain, in local frames ("layerwise"), over the frames of the whole cell ("structure"), and on grids
of rotations ("quadrature"). Each case runs in a process of its own: first its memory is taken, then
it alternates with the plain model on one thread, and the best processor time of each counts.

"environments" is the number of edges that the network sees relative to the plain model; time should
stay below 1.15 times that plus 6 % of the plain step. "peak_ratio" is the memory that a first
evaluation adds to the process, relative to that of the plain model. The rotation errors are the
largest deviations over `TURNS` random rotations (inversion among them) in float64, in meV/atom and
meV/Å; the box of 512 molecules is left out, and grids are turned once.

A last row times the frames alone, forward and backward, in units of a plain step at width 128.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from pet_step import cpu_time, processor
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from pet_calc import __version__
from pet_calc.calculators.space_group import operations_of
from pet_calc.geometry import System, edge_vectors, node_edge_layout
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import EnergyModel, evaluate
from pet_calc.models.ecse.ensemble import Ensemble
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.tokens import bucket_views, views_of_atoms
from pet_calc.neighbors import neighbor_list
from pet_calc.workflows.water_box import water_box

ELEMENTS = (1, 8, 14, 17, 41, 42, 55, 73, 74)
TURNS = 2


def alloy() -> Atoms:
    """128 atoms of body-centered cubic NbMoTaW, species at random."""
    atoms = bulk("Mo", "bcc", a=3.24, cubic=True).repeat(4)
    numbers = np.repeat([41, 42, 73, 74], 32)
    np.random.default_rng(0).shuffle(numbers)
    atoms.numbers = numbers
    return atoms


def caesium_chloride() -> Atoms:
    """54 atoms."""
    return bulk("CsCl", "cesiumchloride", a=4.12, cubic=True).repeat(3)


def rattled(atoms: Atoms) -> Atoms:
    """Displaced by 0.05 Å, as by heat."""
    atoms.rattle(0.05, seed=1)
    return atoms


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "water 64": lambda: water_box(64, seed=0),
    "water 512": lambda: water_box(512, seed=0),
    "Si 64": lambda: rattled(bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)),
    "Si 64 ideal": lambda: bulk("Si", "diamond", a=5.43, cubic=True).repeat(2),
    "CsCl 54": lambda: rattled(caesium_chloride()),
    "CsCl 54 ideal": caesium_chloride,
    "NbMoTaW 128": lambda: rattled(alloy()),
}

PLANS = [
    *((s, "layerwise") for s in STRUCTURES),
    ("Si 64 ideal", "structure"),
    ("CsCl 54 ideal", "structure"),
    ("Si 64", "quadrature 3"),
    ("Si 64", "quadrature 5"),
    ("CsCl 54", "quadrature 3"),
    ("CsCl 54", "quadrature 5"),
    ("water 64", "quadrature 3"),
]


def network(d: int, *, layerwise: bool, dtype: torch.dtype) -> PET:
    """A PET with random weights, which do not depend on how it is evaluated."""
    config = PETConfig(
        elements=ELEMENTS, d_pet=d, d_node=2 * d, d_head=d, d_feedforward=2 * d,
        num_heads=4, ecse="layerwise" if layerwise else "none",
    )  # fmt: skip
    model = PET(config, dtype=torch.float64).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            scale = p.shape[-1] ** -0.5
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model.to(dtype)


def prepared(mode: str, system: System, dtype: torch.dtype) -> EnergyModel:
    """The model of one mode."""
    if mode in ("plain", "layerwise"):
        return network(64, layerwise=mode == "layerwise", dtype=dtype)
    plain = network(64, layerwise=False, dtype=dtype)
    if mode == "structure":
        return Ensemble(plain, "structure", find_operations=operations_of)
    return Ensemble(plain, "quadrature", order=int(mode.split()[1]))


def peak_mb() -> float:
    """Largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def added_memory(system: System, mode: str) -> float:
    """Memory in MB that a first evaluation adds, after one on a small system."""
    small = system_from_atoms(water_box(4, seed=0))
    model = prepared(mode if mode in ("plain", "layerwise") else "plain", small, torch.float32)
    evaluate(model, small, neighbor_list(small, model.cutoff))
    model = prepared(mode, system, torch.float32)
    edges = neighbor_list(system, model.cutoff)
    before = peak_mb()
    evaluate(model, system, edges)
    return peak_mb() - before


def environments(system: System, model: EnergyModel, mode: str) -> tuple[float, float]:
    """Views per atom, and edges in all views relative to the edges."""
    edges = neighbor_list(system, model.cutoff)
    if isinstance(model, Ensemble):
        vectors = edge_vectors(system, edges)
        views = len(model.prepare(system.numbers, edges, vectors).views.group)
        return float(views), float(views)
    if mode == "plain":
        return 1.0, 1.0
    assert isinstance(model, PET)
    vectors = edge_vectors(system, edges)
    found = views_of_atoms(
        edges, vectors, system.n_atoms, model.config.cutoff, model.config.frames, None
    )
    count = torch.bincount(found.group, minlength=system.n_atoms)
    seen = int(count[edges.edge_index[0]].sum())
    return len(found.group) / system.n_atoms, seen / edges.n_edges


def rotation_error(system: System, mode: str, turns: int) -> tuple[float, float]:
    """Largest change of energy, meV/atom, and of turned-back forces, meV/Å, in float64."""
    model = prepared(mode, system, torch.float64)
    first = evaluate(model, system, neighbor_list(system, model.cutoff), stress=False)
    assert first.forces is not None
    energy = force = 0.0
    for k in range(turns):
        matrix = torch.from_numpy(Rotation.random(random_state=k).as_matrix()) * (-1.0) ** k
        turned = replace(system, positions=system.positions @ matrix, cell=system.cell @ matrix)
        model = prepared(mode, turned, torch.float64)
        other = evaluate(model, turned, neighbor_list(turned, model.cutoff), stress=False)
        assert other.forces is not None
        change = (other.energy - first.energy).abs().item() / system.n_atoms
        energy = max(energy, 1e3 * change)
        back = (other.forces @ matrix.T - first.forces).abs().max().item()
        force = max(force, 1e3 * back)
    return energy, force


def case(name: str, mode: str, repeats: int, turns: int) -> dict[str, object]:
    """All figures of one case, but the memory of the plain model."""
    torch.set_num_threads(1)
    system = system_from_atoms(STRUCTURES[name]())
    memory = added_memory(system, mode)
    if mode == "plain":
        return {"peak_mb": memory}
    model, plain = prepared(mode, system, torch.float32), prepared("plain", system, torch.float32)
    edges = neighbor_list(system, model.cutoff)
    views, seen = environments(system, model, mode)
    best = {"mode": float("inf"), "plain": float("inf")}
    for _ in range(repeats):
        for key, m in (("plain", plain), ("mode", model)):
            best[key] = min(best[key], cpu_time(lambda m=m: evaluate(m, system, edges)))  # type: ignore[misc]
    energy, force = rotation_error(system, mode, turns) if turns else (None, None)
    plain_energy = rotation_error(system, "plain", turns)[0] if turns else None
    return {
        "system": name,
        "mode": mode,
        "n_atoms": system.n_atoms,
        "neighbors": round(edges.n_edges / system.n_atoms, 1),
        "views": round(views, 2),
        "environments": round(seen, 3),
        "plain_s": round(best["plain"], 4),
        "seconds": round(best["mode"], 4),
        "ratio": round(best["mode"] / best["plain"], 3),
        "allowed": round(1.15 * seen + 0.06, 3),
        "peak_mb": round(memory, 1),
        "peak_ratio": None,
        "energy_error": energy,
        "force_error": force,
        "plain_energy_error": plain_energy,
    }


def frames_alone(repeats: int) -> dict[str, object]:
    """Frames of 64 water molecules, and what they see, beside a plain step at width 128."""
    torch.set_num_threads(1)
    system = system_from_atoms(STRUCTURES["water 64"]())
    plain = network(128, layerwise=False, dtype=torch.float32)
    config = network(64, layerwise=True, dtype=torch.float32).config
    edges = neighbor_list(system, plain.cutoff)
    layout = node_edge_layout(edges, system.n_atoms)

    def frames() -> None:
        vectors = edge_vectors(system, edges).requires_grad_()
        found = views_of_atoms(edges, vectors, system.n_atoms, config.cutoff, config.frames, None)
        views = bucket_views(layout, vectors.float(), found, unit=False)
        total = torch.stack([v.seen[0].sum() + (v.weight**2).sum() for v in views]).sum()
        torch.autograd.grad(total, vectors)

    best = {"frames": float("inf"), "plain": float("inf")}
    frames()
    for _ in range(5 * repeats):
        best["frames"] = min(best["frames"], cpu_time(frames))
        best["plain"] = min(best["plain"], cpu_time(lambda: evaluate(plain, system, edges)))
    return {
        "system": "water 64",
        "mode": "frames alone, d = 128",
        "n_atoms": system.n_atoms,
        "plain_s": round(best["plain"], 4),
        "seconds": round(best["frames"], 4),
        "ratio": round(best["frames"] / best["plain"], 4),
        "allowed": 0.06,
    }


def in_a_process(*arguments: str) -> dict[str, object]:
    """One case in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def report(rows: list[dict[str, object]], console: Console) -> None:
    """Print what decides."""
    names = ("system", "mode", "views", "environments", "ratio", "allowed", "peak_ratio",
             "energy_error", "force_error", "plain_energy_error")  # fmt: skip
    table = Table(title="ECSE beside the plain model: energy, forces and stress")
    for n in names:
        table.add_column(n, justify="left" if n in ("system", "mode") else "right")
    for row in rows:
        values = [row.get(n) for n in names]
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v or "") for v in values))
    console.print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--only", help="cases whose system or mode contains this")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", nargs=2, metavar=("SYSTEM", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, mode = options.case
        found = (
            frames_alone(options.repeats)
            if mode == "frames"
            else case(name, mode, options.repeats, options.turns)
        )
        print(json.dumps(found))
        return
    console, rows = Console(), []
    more = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "torch": torch.__version__,
        "processor": processor(),
        "threads": 1,
        "dtype": "float32",
        "load_average": round(os.getloadavg()[0], 1),
    }
    plain: dict[str, float] = {}
    plans = [*PLANS, ("water 64", "frames")]
    for name, mode in plans:
        if options.only and options.only not in name and options.only not in mode:
            continue
        slow = mode.startswith("quadrature") or name == "water 512"
        # a large box is as symmetric as a small one, and one turn shows the error of a grid
        turns = 0 if name == "water 512" else min(options.turns, 1 if slow else options.turns)
        repeats = 1 if slow else options.repeats
        row = in_a_process("--case", name, mode, "--repeats", str(repeats), "--turns", str(turns))
        if mode != "frames":
            if name not in plain:
                plain[name] = float(str(in_a_process("--case", name, "plain")["peak_mb"]))
            row["peak_ratio"] = round(float(str(row["peak_mb"])) / plain[name], 2)
        rows.append(row | more)
        console.print(f"{name}, {mode}: {row['ratio']} times plain, allowed {row['allowed']}")
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            with options.out.open("w", newline="") as file:
                fields = list(dict.fromkeys(k for r in rows for k in r))
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)
    report(rows, console)


if __name__ == "__main__":
    main()
