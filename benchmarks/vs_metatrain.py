"""PET here against PET elsewhere: same weights, same box, same process, one thread, CPU time.

    python -m venv bench && bench/bin/pip install torch==2.13.0 metatrain pet-kokkos "pet-calc"
    bench/bin/python benchmarks/vs_metatrain.py --out benchmarks/results/vs_metatrain.csv

Energy, forces and stress of 64 water molecules with metatrain's default PET (d = 128, cutoff 4.5 Å)
and random weights, which metatrain makes and this package imports from the checkpoint. Two
comparisons:

* networks: `PETBackend` of metatrain (pure torch, in eager mode) and `pet_calc.models.evaluate`,
  both from a given neighbor list, the latter with `torch.compile` too;
* calculators: the ASE calculators of metatomic (the exported model), pet-kokkos (if it is
  installed) and pet_calc, all with their neighbor lists, on slightly different positions each.

The contestants take turns, and the fastest of many turns counts, so that a busy machine disturbs
none of them alone. Their energies and forces must agree, or nothing is written.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from pet_step import ALLOCATOR, cpu_time, processor, to_system
from rich.console import Console
from rich.table import Table

from pet_calc import PETCalculator, __version__
from pet_calc.geometry import Edges, System
from pet_calc.geometry.cell import stress_from_virial
from pet_calc.io.foreign.checkpoints import load_published
from pet_calc.models import evaluate
from pet_calc.neighbors import neighbor_list
from pet_calc.workflows.water_box import water_box

# Largest difference: energy in eV per atom, forces in eV/Å for forces of 1 eV/Å
AGREEMENT = {"float32": (1e-5, 2e-5), "float64": (1e-10, 1e-10)}

BARS = {
    "network, eager": ("metatrain backend", 1.4),
    "network, compiled": ("metatrain backend", 1.6),
    "calculator": ("pet-kokkos calculator", 2.0),
}


def metatrain_model(elements: list[int], seed: int) -> Any:
    """Metatrain's PET with its default options and random weights."""
    from metatrain.pet import PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    target = get_energy_target_info("energy", {"unit": "eV"}, add_position_gradients=True)
    info = DatasetInfo(length_unit="angstrom", atomic_types=elements, targets={"energy": target})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PET(get_default_hypers("pet")["model"], info)
        for parameter in model.parameters():  # forces of the size of real ones
            if parameter.dim() == 2:
                parameter.data.mul_(1.5)
    return model.requires_grad_(False).eval()


def metatrain_network(model: Any, system: System, edges: Edges) -> Callable[[], Any]:
    """Energy, forces and stress by metatrain's `PETBackend` from a given neighbor list."""
    backend, dtype = model.backend, next(model.parameters()).dtype
    positions, cell = system.positions.to(dtype), system.cell.to(dtype)
    centers, neighbors = edges.edge_index

    def run() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = positions.clone().requires_grad_()
        strain = torch.eye(3, dtype=dtype, device=x.device).requires_grad_()
        cells = cell @ strain
        batch = backend.preprocess(
            x @ strain,
            centers,
            neighbors,
            system.numbers,
            cells,
            edges.cell_shifts,
            system.system_index,
            model.cutoff_width_adaptive,
        )
        features = backend.calculate_features(batch)
        found, _, _ = backend.predict(*features, batch, cells, system.system_index, ["energy"])
        energy = found["energy"][0].sum()
        gradient, virial = torch.autograd.grad(energy, [x, strain])
        stress = stress_from_virial(virial.double()[None], system.cell)
        return energy.detach(), -gradient, stress

    return run


def write_kokkos(model: Any, stem: Path) -> None:
    """Metatrain's model, without reference energies, as pet-kokkos reads it."""
    hypers = dict(model.hypers)
    hypers |= {
        "head_dim": hypers["d_pet"] // hypers["num_heads"],
        "num_readout_layers": 1,
        "long_range_enabled": False,
    }
    n = len(model.atomic_types)
    description = {
        "format_version": 1,
        "architecture": "pet",
        "hypers": hypers,
        "energy_scale": 1.0,
        "n_species": n,
        "species_to_index": model.backend.species_to_species_index.tolist(),
        "composition_energies": [0.0] * n,
    }
    stem.with_suffix(".json").write_text(json.dumps(description))
    state = model.backend.state_dict()
    tensors = {k: t.contiguous().float() for k, t in state.items() if t.is_floating_point()}
    safetensors.torch.save_file(tensors, stem.with_suffix(".safetensors"))


def take_turns(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least processor time of each in seconds."""
    best = dict.fromkeys(contestants, float("inf"))
    for run in contestants.values():
        for _ in range(2):  # warm caches, compile
            run()
    for _ in range(repeats):
        for name, run in contestants.items():
            best[name] = min(best[name], cpu_time(run))
    return best


def require_agreement(name: str, found: Any, reference: Any, n_atoms: int, dtype: str) -> None:
    """Print how far two contestants are apart; raise if that is too far."""
    energy = abs(float(found[0]) - float(reference[0])) / n_atoms
    forces = float(np.abs(np.asarray(found[1]) - np.asarray(reference[1])).max())
    size = float(np.abs(np.asarray(reference[1])).max())
    print(f"{name}: {energy:.1e} eV/atom, {forces:.1e} eV/Å (largest force {size:.2g} eV/Å)")
    limits = AGREEMENT[dtype]
    if not (energy < limits[0] and forces < limits[1] * max(1.0, size)):
        raise RuntimeError(f"{name} must agree within {limits}, but does not")


def networks(
    model: Any, checkpoint: Path, atoms: Atoms, dtype: str, *, compiled: bool
) -> dict[str, Callable[[], Any]]:
    """The networks on one neighbor list, after a check that they agree."""
    system = to_system(atoms)
    ours = load_published(checkpoint, getattr(torch, dtype))
    edges = neighbor_list(system, ours.cutoff)
    reference = metatrain_network(model, system, edges)
    contestants = {
        "metatrain backend": reference,
        "network, eager": lambda: evaluate(ours, system, edges),
    }
    if compiled:
        from pet_calc.models.pet.compiled import compile_regions

        fast = compile_regions(load_published(checkpoint, getattr(torch, dtype)))
        contestants["network, compiled"] = lambda: evaluate(fast, system, edges)
    expected = reference()
    for name, run in list(contestants.items())[1:]:
        found = run()
        pair = (found.energy, found.forces)
        require_agreement(name, pair, expected, len(atoms), dtype)
        stress = float((found.stress - expected[2]).abs().max())
        print(f"{name}: {stress:.1e} eV/Å³ in the stress")
    return contestants


def calculators(
    model: Any, checkpoint: Path, atoms: Atoms, dtype: str
) -> dict[str, Callable[[], Any]]:
    """The ASE calculators, after a check that they agree."""
    from metatomic_ase import MetatomicCalculator

    found: dict[str, Any] = {
        "metatrain calculator": MetatomicCalculator(model.export(), device="cpu"),
        "calculator": PETCalculator(checkpoint, dtype=dtype, device="cpu"),
    }
    if importlib.util.find_spec("pet_kokkos") is not None:
        import pet_kokkos.ase

        stem = checkpoint.with_name("kokkos")
        write_kokkos(model, stem)
        found["pet-kokkos calculator"] = pet_kokkos.ase.PETCalculator(str(stem))
    results = {}
    for name, calculator in found.items():
        atoms.calc = calculator
        results[name] = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
    for name in list(found)[1:]:
        reference = results["metatrain calculator"]
        require_agreement(name, results[name], reference, len(atoms), dtype)

    generator = np.random.default_rng(0)

    def step(calculator: Any) -> None:
        moved = atoms.copy()
        moved.positions += 1e-4 * generator.standard_normal(moved.positions.shape)
        calculator.calculate(moved, ["energy", "forces", "stress"], all_changes)

    return {name: lambda c=c: step(c) for name, c in found.items()}  # type: ignore[misc]


def installed(name: str) -> str:
    """Version of a package; empty if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """One row for each contestant."""
    atoms = water_box(options.molecules, seed=0)
    dtype = options.dtype
    model = metatrain_model([1, 8], seed=0)
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PET_CALC_CACHE"] = folder
        checkpoint = Path(folder) / "random.ckpt"
        torch.save(model.get_checkpoint(), checkpoint)
        model = model.to(getattr(torch, dtype))
        best |= take_turns(
            networks(model, checkpoint, atoms, dtype, compiled=options.compile), options.repeats
        )
        if dtype == "float32":
            best |= take_turns(calculators(model, checkpoint, atoms, dtype), options.repeats)
    common = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "pet_calc": __version__,
        "torch": torch.__version__,
        "metatrain": installed("metatrain"),
        "pet_kokkos": installed("pet-kokkos"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "allocator": "tuned" if not ALLOCATOR.items() - os.environ.items() else "default",
        "load_average": round(os.getloadavg()[0], 1),
        "dtype": dtype,
        "n_atoms": len(atoms),
        "cutoff_A": 4.5,
        "d_pet": 128,
        "repeats": options.repeats,
    }
    rows: list[dict[str, object]] = []
    for name, seconds in best.items():
        peer = "metatrain calculator" if "calculator" in name else "metatrain backend"
        ratios = {"speedup_over_metatrain": round(best[peer] / seconds, 3)}
        kokkos = best.get("pet-kokkos calculator")
        over = round(kokkos / seconds, 3) if kokkos and "calculator" in name else ""
        rows.append(
            common
            | {"contestant": name, "cpu_s": round(seconds, 5)}
            | ratios
            | {"speedup_over_pet_kokkos": over}
        )
    return rows


def report(rows: list[dict[str, object]], console: Console) -> None:
    """Print the rows, with the bars that they should reach."""
    table = Table(title="energy, forces and stress, processor time of one step")
    for column in ("contestant", "s", "x metatrain", "x pet-kokkos", "bar"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    for row in rows:
        name = str(row["contestant"])
        peer, bar = BARS.get(name, ("", 0.0))
        key = "speedup_over_pet_kokkos" if "kokkos" in peer else "speedup_over_metatrain"
        reached = row[key] != "" and float(str(row[key])) >= bar
        verdict = f"[{'green' if reached else 'red'}]>= {bar} {peer}" if peer else ""
        values = (row["cpu_s"], row["speedup_over_metatrain"], row["speedup_over_pet_kokkos"])
        table.add_row(name, *map(str, values), verdict)
    console.print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--default-allocator", action="store_true")
    options = parser.parse_args()
    wanted = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    wanted |= {} if options.default_allocator else ALLOCATOR
    if wanted.items() - os.environ.items():
        # the libraries read these when they start
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    torch.set_num_threads(1)
    rows = measure(options)
    report(rows, Console())
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
