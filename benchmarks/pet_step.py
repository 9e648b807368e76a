"""How far is a PET step from the matrix products that it consists of? One thread, CPU time.

    python benchmarks/pet_step.py --out benchmarks/results/pet_step.csv

Energy, forces and stress of 64 water molecules (d = 128, cutoff 4.5 Å, float32) are timed against
the floor that the processor sets: the floating-point operations of the model's matrix products,
divided by the rate of `torch.mm` in the same process on the product of edge tokens and weights
that occurs most. Step and product alternate, and the best of many counts, so that a busy machine
disturbs neither one alone.

Operations are counted by torch from the calls that happen ("executed": the embedding of edges is
folded into one small matrix, and weights need no gradient), and from the architecture as
published ("published": the same without folding). The bar of 1.5 is on the published count; the
ratio to the executed one is given beside it.

The process is started again with `ALLOCATOR` in its environment: memory is kept instead of given
back to the system after every operation, and large tensors lie on huge pages.
``--default-allocator`` measures without.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from pet_calc import __version__
from pet_calc.geometry import NodeEdgeLayout, System, node_edge_layout
from pet_calc.models import evaluate
from pet_calc.models.pet import PET, PETConfig
from pet_calc.neighbors import neighbor_list
from pet_calc.workflows.water_box import water_box

ALLOCATOR = {
    "THP_MEM_ALLOC_ENABLE": "1",  # torch: huge pages for tensors above 2 MB
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}

BURST = 16
"""Products timed at once."""

BARS = {
    "ratio_published": 1.5,
    "efs_over_e": 2.2,
    "list_and_layout_share": 0.03,
    "padding_fraction": 0.05,
}


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def to_system(atoms: Atoms) -> System:
    """The box as tensors."""
    return System.single(
        torch.from_numpy(atoms.positions.copy()),
        torch.from_numpy(atoms.numbers.astype("int64")),
        torch.from_numpy(atoms.cell.array.copy()),
        torch.from_numpy(atoms.pbc.copy()),
    )


def cpu_time(function: Callable[[], object]) -> float:
    """Seconds of processor time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def count(function: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def published_forward(config: PETConfig, layout: NodeEdgeLayout, n_edges: int) -> int:
    """Operations of one forward pass of the architecture as published, without padding.

    Two per multiply-add in every linear layer and in both products of each attention.
    """
    c, n = config, len(layout.atom_order)
    d, n_tokens = c.d_pet, n_edges + n
    mask = layout.slot_mask
    per_atom = torch.cat([mask[b.slots].view(b.n_atoms, b.width).sum(1) for b in layout.buckets])
    degree = per_atom + 1  # tokens of each atom, its own included
    attention = 2 * 2 * d * int(degree.square().sum())  # q k and w v
    attention += 2 * n_tokens * 4 * d * d  # q, k, v and output
    feed_forward = 2 * n_edges * 3 * d * c.d_feedforward
    node = 0
    if c.d_node != d:
        node = 2 * n * (2 * c.d_node * d + 3 * c.d_node * 2 * c.d_node)
    layer = c.num_attention_layers * (attention + feed_forward + node)
    total = 0
    for g in range(c.num_gnn_layers):
        embed = 2 * n_edges * (c.geometry_width * d + (2 if g == 0 else 3) * d * d + d * d)
        combine = 2 * n_edges * (2 * d * 2 * d + 2 * d * d)
        total += layer + embed + combine
    head = c.d_head
    total += 2 * n_edges * (d * head + head * head + head)
    total += 2 * n * (c.d_node * head + head * head + head)
    return total


def measure(molecules: int, repeats: int, dtype: torch.dtype, encoding: str) -> dict[str, object]:
    """All numbers of one configuration."""
    config = PETConfig(elements=(1, 8), input_encoding=encoding)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    model = PET(config, dtype=dtype).requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            scale = p.shape[-1] ** -0.5
            p.add_(scale * torch.rand(p.shape, generator=generator).to(dtype) - 0.5 * scale)
    system = to_system(water_box(molecules, seed=0))
    edges = neighbor_list(system, model.cutoff)
    layout = node_edge_layout(edges, system.n_atoms)
    n_slots = len(layout.slot_edge)

    def energy_only() -> None:
        evaluate(model, system, edges, forces=False, stress=False)

    def everything() -> None:
        evaluate(model, system, edges)

    d = config.d_pet
    shapes = {
        "w_in": (n_slots, d, 2 * config.d_feedforward),
        "qkv": (n_slots, d, 3 * d),
        "w_out": (n_slots, config.d_feedforward, d),
    }
    products = {}
    for name, (rows, inner, columns) in shapes.items():
        a = torch.rand(rows, inner, dtype=dtype, generator=generator)
        b = torch.rand(inner, columns, dtype=dtype, generator=generator)
        out = torch.empty(rows, columns, dtype=dtype)
        products[name] = (
            lambda a=a, b=b, out=out: torch.mm(a, b, out=out),
            2 * a.numel() * columns,
        )

    best: dict[str, float] = {}

    def keep(name: str, seconds: float) -> None:
        best[name] = min(best.get(name, seconds), seconds)

    everything()
    for _ in range(repeats):
        keep("efs", cpu_time(everything))
        keep("e", cpu_time(energy_only))
        keep("list", cpu_time(lambda: neighbor_list(system, model.cutoff)))
        keep("layout", cpu_time(lambda: node_edge_layout(edges, system.n_atoms)))
        for name, (product, _) in products.items():
            # a burst about as long as the step: a shorter one finds quieter moments
            keep(name, cpu_time(lambda p=product: [p() for _ in range(BURST)]) / BURST)  # type: ignore[misc]
    rates = {name: flops / best[name] for name, (_, flops) in products.items()}
    rate = max(rates.values())
    executed, executed_e = count(everything), count(energy_only)
    forward = published_forward(config, layout, edges.n_edges)
    published = 2 * forward  # the gradient on inputs costs as much as the forward pass
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "torch": torch.__version__,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "allocator": "tuned" if not ALLOCATOR.items() - os.environ.items() else "default",
        "load_average": round(os.getloadavg()[0], 1),
        "dtype": str(dtype).removeprefix("torch."),
        "encoding": encoding,
        "n_atoms": system.n_atoms,
        "cutoff_A": config.cutoff,
        "d_pet": d,
        "neighbors_mean": round(edges.n_edges / system.n_atoms, 2),
        "n_edges": edges.n_edges,
        "n_buckets": len(layout.buckets),
        "repeats": repeats,
        "mm_gflops_per_s": round(rate / 1e9, 2),
        **{f"mm_{name}_gflops_per_s": round(r / 1e9, 2) for name, r in rates.items()},
        "efs_s": round(best["efs"], 5),
        "e_s": round(best["e"], 5),
        "list_s": round(best["list"], 5),
        "layout_s": round(best["layout"], 5),
        "published_gflop": round(published / 1e9, 3),
        "executed_gflop": round(executed / 1e9, 3),
        "ratio_published": round(best["efs"] * rate / published, 3),
        "ratio_executed": round(best["efs"] * rate / executed, 3),
        "e_ratio_published": round(best["e"] * rate / forward, 3),
        "e_ratio_executed": round(best["e"] * rate / executed_e, 3),
        "efs_over_e": round(best["efs"] / best["e"], 3),
        "list_and_layout_share": round((best["list"] + best["layout"]) / best["efs"], 4),
        "padding_fraction": round(layout.padding_fraction, 4),
    }


def report(results: list[dict[str, object]], console: Console) -> None:
    """Print all results, one column each, with the bars that they should stay under."""
    table = Table(title="PET: energy, forces and stress against the floor of matrix products")
    table.add_column("quantity")
    for r in results:
        table.add_column(f"{r['dtype']}, {r['encoding']}", justify="right")
    table.add_column("bar", justify="right")
    for name in results[0]:
        bar = BARS.get(name)
        cells = [
            f"[{'green' if float(str(r[name])) <= bar else 'red'}]{r[name]}"
            if bar
            else str(r[name])
            for r in results
        ]
        table.add_row(name, *cells, f"<= {bar}" if bar else "")
    console.print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--encoding", choices=["cartesian", "radial", "both"], default="both")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--default-allocator", action="store_true")
    options = parser.parse_args()
    if not options.default_allocator and ALLOCATOR.items() - os.environ.items():
        # both libraries read these when they start
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
    torch.set_num_threads(1)
    encodings = ["cartesian", "radial"] if options.encoding == "both" else [options.encoding]
    dtype = getattr(torch, options.dtype)
    results = [measure(options.molecules, options.repeats, dtype, e) for e in encodings]
    report(results, Console())
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(results[0]))
            writer.writeheader()
            writer.writerows(results)


if __name__ == "__main__":
    main()
