"""The memory of a simulation does not grow with its length; a leak would be seen."""

from __future__ import annotations

import gc
import itertools
import mmap
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from calculators.small_potentials import rare_pet

from pet_calc import PETCalculator
from pet_calc.doctor.performance import status_bytes
from pet_calc.workflows.md import MDConfig, Observer, run_md
from pet_calc.workflows.md.log import MDSample
from pet_calc.workflows.md.reports import MOST_SAMPLES, Reporter

# in all: CPython's free lists fill up by half of it in the first hundreds of steps and then stay; a
# sample of the log that is kept takes 500 bytes at each step
PYTHON_BYTES = 45_000
# resident memory comes in pages, and freed memory is not always given back at once
RESIDENT = 6e6


@dataclass
class Reading:
    step: int
    tensors: int
    python: int
    resident: int


def grown(folder, steps, leak=None):
    """Readings in the middle and at the end of a run."""
    model = rare_pet(elements=(29,), num_gnn_layers=1)
    model.energy_scale.fill_(1e-4)  # heavy atoms at 1 K stay where they are
    atoms = bulk("Cu", cubic=True)
    atoms.calc = PETCalculator(model)
    found = []

    def read(atoms, sample):
        if sample.step in (steps // 2, steps):
            gc.collect()
            # not isinstance, which asks lazy modules for their class
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            python, _ = tracemalloc.get_traced_memory()
            found.append(Reading(sample.step, tensors, python, status_bytes("VmRSS")))

    def hold(atoms, sample):
        if leak is not None:
            leak(atoms)

    config = MDConfig(
        steps=steps,
        temperature=1.0,
        frame_interval=10,
        log_interval=1,
        checkpoint_interval=max(1, steps // 10),
    )
    tracemalloc.start()
    try:
        run_md(atoms, config, folder, observers=[Observer(hold), Observer(read)])
    finally:
        tracemalloc.stop()
    return found


def leaks(first, last):
    """What has grown more than it may."""
    checks = {
        "tensors": last.tensors > first.tensors,
        "python": last.python - first.python > PYTHON_BYTES,
        "resident": last.resident - first.resident > RESIDENT,
    }
    return {name for name, grew in checks.items() if grew}


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's /proc"
)


@needs_proc
def test_memory_is_constant_over_steps(tmp_path):
    assert leaks(*grown(tmp_path, 240)) == set()


@needs_proc
@pytest.mark.slow
def test_memory_is_constant_over_many_steps(tmp_path):
    assert leaks(*grown(tmp_path, 20_000)) == set()


@needs_proc
@pytest.mark.parametrize("kind", ["tensors", "python", "resident"])
def test_leaks_are_seen(tmp_path, kind):
    """The control: a tensor, some numbers, or memory that Python does not know, at each step."""
    kept = []
    leak = {
        "tensors": lambda atoms: kept.append(torch.zeros(1)),
        "python": lambda atoms: kept.append([float(x) for x in range(100)]),
        "resident": lambda atoms: kept.append(touched(1 << 20)),
    }[kind]
    assert kind in leaks(*grown(tmp_path, 60, leak))


def touched(size):
    """New pages of the system, which no allocator has kept from before."""
    pages = mmap.mmap(-1, size)
    pages.write(b"x" * size)
    return pages


def test_reports_keep_a_bounded_number_of_samples():
    config = MDConfig(steps=10 * MOST_SAMPLES, log_interval=1)
    reporter = Reporter(config, 1, lambda progress: None)
    for step in range(config.steps + 1):
        reporter.report(MDSample(step, 0.5 * step, 0.0, 0.0, 0.0, 1e-3 * step, 300.0, 1.0))
    kept = [step for step, _ in reporter._series]
    assert MOST_SAMPLES // 3 < len(kept) <= MOST_SAMPLES
    assert len({b - a for a, b in itertools.pairwise(kept)}) == 1
    assert kept[0] == 0
    assert kept[-1] > 0.99 * config.steps
