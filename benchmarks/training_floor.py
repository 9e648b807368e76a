"""How much of a training step are its matrix products? One thread, CPU time.

    python benchmarks/training_floor.py --out benchmarks/results/training_floor.csv

A step is what ``pet-calc train`` does in one: augmentation, forward pass, forces and stress by a
first backward pass, the loss, the second backward pass through both, clipping, optimizer and
averaged weights, on one frame of liquid water. Its floor is the time of its own matrix products
alone: every `mm`, `addmm`, `bmm` and `baddbmm` that the step calls is recorded with shapes and
strides, and all of them are computed again in the same order, with operands and results in memory
that is there already. Step and floor alternate in one process, and the least time of many counts.

The bar is a share of 60 %: floor / step.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pet_step import ALLOCATOR, cpu_time, processor
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pet_calc import __version__
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.models.pet import PETConfig
from pet_calc.training.potentials.config import (
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from pet_calc.training.potentials.data import Batch
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all
from pet_calc.workflows.water_box import water_box

BAR = 0.6


def added_product(total: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`torch.baddbmm` in place; the first time, without `out`, only its memory counts."""
    return total if out is None else total.baddbmm_(a, b)


def added_operations(total: torch.Size, a: torch.Size, b: torch.Size, **_others: object) -> int:
    """Operations of `added_product` from the shapes."""
    return 2 * a.numel() * b[-1]


PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.mm.default: torch.mm,
    torch.ops.aten.addmm.default: torch.addmm,
    torch.ops.aten.bmm.default: torch.bmm,
    torch.ops.aten.baddbmm.default: torch.baddbmm,
    torch.ops.aten.bmm.out: torch.bmm,
    torch.ops.aten.baddbmm_.default: added_product,
}

#: How the counter counts an operation that it does not know.
IN_PLACE = {torch.ops.aten.baddbmm_: added_operations}

Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
Call = tuple[Any, tuple[Layout, ...]]


class Recorder(TorchDispatchMode):
    """Keeps every matrix product with the layouts of its operands."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in PRODUCTS:
            layouts = tuple((tuple(x.shape), tuple(x.stride()), x.dtype) for x in args)
            self.calls.append((func, layouts))
        return func(*args, **(kwargs or {}))


def operand(layout: Layout, generator: torch.Generator) -> Tensor:
    """Random numbers in a given layout."""
    shape, strides, dtype = layout
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n)
    values = torch.rand(max(1, extent), dtype=dtype, generator=generator)
    return values.as_strided(shape, strides)


def replay(calls: list[Call]) -> Callable[[], None]:
    """The recorded products as a function; each layout has its memory once."""
    generator = torch.Generator().manual_seed(0)
    prepared: dict[Call, tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]] = {}
    for call in calls:
        if call not in prepared:
            function = PRODUCTS[call[0]]
            operands = tuple(operand(layout, generator) for layout in call[1])
            prepared[call] = (function, operands, function(*operands))
    sequence = [prepared[call] for call in calls]

    def run() -> None:
        for function, operands, out in sequence:
            function(*operands, out=out)

    return run


def training_run(molecules: int, d_pet: int, dtype: str, optimizer: str) -> tuple[Run, list[Batch]]:
    """A run on one frame of water with random labels."""
    atoms = water_box(molecules, seed=0)
    generator = np.random.default_rng(0)
    labels = generator.standard_normal((len(atoms), 3)), 0.01 * generator.standard_normal(6)
    frame = LabeledFrame(atoms, -5.0 * len(atoms), *labels)
    config = TrainConfig(
        name="floor",
        model=PETConfig(elements=(1, 8), d_pet=d_pet, d_node=2 * d_pet, input_encoding="radial"),
        data=DataConfig(train=("none",)),
        stages=(StageConfig(10**6, warmup_steps=1, loss=LossConfig(1.0, 1.0, 1.0)),),
        optimizer=OptimizerConfig(name=optimizer),  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
    )
    frames = prepare_all([frame], config)
    return Run.start(config, [frame], frames), frames


def measure(
    molecules: int, d_pet: int, dtype: str, optimizer: str, repeats: int
) -> dict[str, object]:
    """All numbers of one configuration."""
    run, frames = training_run(molecules, d_pet, dtype, optimizer)
    run.advance(frames)  # the first step also aligns energies
    with Recorder() as recorder:
        run.advance(frames)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        run.advance(frames)
    products = replay(recorder.calls)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as again:
        products()
    if again.get_total_flops() != counter.get_total_flops():
        raise RuntimeError(
            f"the step has {counter.get_total_flops()} operations in matrix products, but its "
            f"recorded products have {again.get_total_flops()}"
        )
    best = {"step": float("inf"), "floor": float("inf")}
    for _ in range(repeats):
        best["step"] = min(best["step"], cpu_time(lambda: run.advance(frames)))
        best["floor"] = min(best["floor"], cpu_time(products))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "torch": torch.__version__,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "allocator": "tuned" if not ALLOCATOR.items() - os.environ.items() else "default",
        "load_average": round(os.getloadavg()[0], 1),
        "dtype": dtype,
        "optimizer": optimizer,
        "n_atoms": frames[0].system.n_atoms,
        "n_edges": frames[0].edges.n_edges,
        "d_pet": d_pet,
        "repeats": repeats,
        "products": len(recorder.calls),
        "gflop": round(counter.get_total_flops() / 1e9, 3),
        "step_s": round(best["step"], 5),
        "floor_s": round(best["floor"], 5),
        "share": round(best["floor"] / best["step"], 3),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--d-pet", type=int, default=128)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--optimizer", choices=["adam", "soap"], default="adam")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--default-allocator", action="store_true")
    options = parser.parse_args()
    if not options.default_allocator and ALLOCATOR.items() - os.environ.items():
        # the libraries read these when they start
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
    torch.set_num_threads(1)
    row = measure(
        options.molecules, options.d_pet, options.dtype, options.optimizer, options.repeats
    )
    table = Table(title="a training step and its matrix products")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in row.items():
        table.add_row(name, str(value))
    Console().print(table)
    verdict = "reached" if float(str(row["share"])) >= BAR else "missed"
    print(f"share of the floor {row['share']}; {BAR} wanted: {verdict}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
