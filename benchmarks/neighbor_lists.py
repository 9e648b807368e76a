"""Time of a neighbor list, by provider and size.

    python benchmarks/neighbor_lists.py --out benchmarks/results/neighbor_lists.csv

Copper at random displacements, the whole list with shifts and reverse edges. On a CUDA device every
provider is timed there, the Triton kernels also as a CUDA graph, in which nothing waits for the
host; without one, on one thread of the CPU in processor time. Each list is compared with that of
vesin before it is timed. The fastest of several interleaved rounds counts.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from pet_step import processor, to_system
from rich.console import Console
from rich.table import Table
from vesin import NeighborList

from pet_calc import __version__
from pet_calc.geometry import Edges, System
from pet_calc.kernels.neighbor_matrix import image_counts, neighbor_matrix
from pet_calc.neighbors import neighbor_list
from pet_calc.neighbors.device import grown_matrix

#: Cubic cells along each edge of the box; four atoms in each.
REPEATS = (1, 3, 6, 10, 20, 29)
#: Atoms up to which the definition in torch, and the tiles of all pairs, are timed.
MOST_OF_REFERENCE = {"cpu": 150, "cuda": 1000}
MOST_OF_TILES = 8000

Provider = tuple[str, Callable[[], object], Callable[[], Edges] | None]


def copper(repeat: int) -> System:
    """A cubic box with atoms off their sites."""
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=0)
    return to_system(atoms)


def vesin_alone(system: System, cutoff: float, *, full: bool) -> Callable[[], object]:
    """The half or full list of the library, without sorting, reverse edges or tensors."""
    points, box = system.positions.numpy(), system.cell[0].numpy()
    periodic = np.ones(3, dtype=bool)
    lists = NeighborList(cutoff=cutoff, full_list=full)
    return lambda: lists.compute(points=points, box=box, periodic=periodic, quantities="ijS")


def graph_of(function: Callable[[], object]) -> Callable[[], object]:
    """The replay of a function that has been captured."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = function()
    return lambda: (graph.replay(), kept)


def providers(host: System, device: str, cutoff: float) -> Iterator[Provider]:
    """Name, what is timed, and the edges to compare."""
    system = host.to(device)
    arguments = (system.positions, system.cell, system.pbc, system.system_index, cutoff)
    images = image_counts(system.cell, system.pbc, cutoff)
    if device == "cpu":
        yield "vesin alone, half list", vesin_alone(host, cutoff, full=False), None
        yield "vesin alone, full list", vesin_alone(host, cutoff, full=True), None

    def on_the_host() -> Edges:
        return neighbor_list(system, cutoff, backend="vesin")

    yield "vesin", on_the_host, on_the_host

    def fixed(capacity: int, **options: str) -> Callable[[], object]:
        return lambda: neighbor_matrix(*arguments, capacity=capacity, images=images, **options)

    if system.n_atoms <= MOST_OF_REFERENCE[device]:
        first = neighbor_matrix(*arguments, capacity=256, images=images, backend="reference")
        yield "torch", fixed(256, backend="reference"), first.to_edges
    if device == "cuda":
        for method in ("tiles", "cells"):
            if method == "tiles" and system.n_atoms > MOST_OF_TILES:
                continue
            build = fixed(64, backend="triton", method=method)
            yield f"triton, {method}", build, build().to_edges
            yield f"triton, {method}, CUDA graph", graph_of(build), None
    if find_spec("nvalchemiops"):
        found = grown_matrix(system, cutoff, images, "nvalchemi")
        assert found is not None
        yield (
            "nvalchemi",
            lambda: grown_matrix(system, cutoff, images, "nvalchemi"),
            found.to_edges,
        )


def same(found: Edges, expected: Edges) -> bool:
    """Whether two lists are equal to the last pair."""
    return (
        torch.equal(found.edge_index.cpu(), expected.edge_index)
        and torch.equal(found.cell_shifts.cpu(), expected.cell_shifts)
        and torch.equal(found.reverse_edge.cpu(), expected.reverse_edge)
    )


def seconds(function: Callable[[], object], device: str, calls: int) -> float:
    """Of one call: processor time on a CPU, time between events on a CUDA device."""
    if device == "cpu":
        start = time.process_time()
        for _ in range(calls):
            function()
        return (time.process_time() - start) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def measure(device: str, cutoff: float, repeats: tuple[int, ...]) -> list[dict[str, object]]:
    """One row for every provider and size."""
    rows: list[dict[str, object]] = []
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    for repeat in repeats:
        host = copper(repeat)
        expected = neighbor_list(host, cutoff, backend="vesin")
        timed = []
        for provider, function, edges in providers(host, device, cutoff):
            if edges is not None and not same(edges(), expected):
                raise SystemExit(f"{provider} differs from vesin at {host.n_atoms} atoms")
            function()
            timed.append((provider, function))
        calls = max(1, 2000 // host.n_atoms) if device == "cpu" else 10
        best = dict.fromkeys((p for p, _ in timed), float("inf"))
        for _ in range(5):
            for provider, function in timed:
                best[provider] = min(best[provider], seconds(function, device, calls))
        rows += [
            {
                "provider": provider,
                "atoms": host.n_atoms,
                "edges": expected.n_edges,
                "seconds": f"{value:.3e}",
                "edges_per_second": f"{expected.n_edges / value:.3e}",
                "cutoff": cutoff,
                "hardware": name,
                "torch": torch.__version__,
                "pet_calc": __version__,
                "date": datetime.now(UTC).date().isoformat(),
            }
            for provider, value in best.items()
        ]
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutoff", type=float, default=5.0, help="in Å")
    parser.add_argument("--repeats", type=int, nargs="+", default=REPEATS, help="cells of an edge")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rows = measure(device, options.cutoff, tuple(options.repeats))
    table = Table(title=f"Neighbor lists, {rows[0]['hardware']}, one thread of the host")
    for column in ("provider", "atoms", "edges", "seconds", "edges_per_second"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[c]) for c in ("provider", "atoms", "edges", "seconds")),
                      str(row["edges_per_second"]))  # fmt: skip
    Console().print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator=os.linesep)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
