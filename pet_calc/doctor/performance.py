"""Time per step, memory, and the largest supercell that memory would hold."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pet_calc.doctor.dynamics import default_timestep
from pet_calc.doctor.evaluation import bare, displaced
from pet_calc.doctor.finding import Finding, Verdict

#: Share of the free memory that an estimate counts on.
USABLE = 0.8
#: A peak counts if it is this many bytes above what was in use before.
NOISE = 8_000_000


def speed(
    atoms: Atoms, calculator: Any, *, rng: np.random.Generator, seconds: float = 3.0
) -> Finding:
    """Median time of a step of dynamics: energy and forces of slightly moved atoms."""
    work = displaced(atoms, rng, 0.0)
    work.calc = calculator
    work.get_forces()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 50):
        work.positions += 0.002 * rng.standard_normal(work.positions.shape)
        start = time.perf_counter()
        work.get_forces()
        work.get_potential_energy()
        synchronize(calculator)
        times.append(time.perf_counter() - start)
    median = 1e3 * float(np.median(times))
    timestep = default_timestep(atoms)
    per_day = timestep * 1e-6 * 86400.0 / (1e-3 * median)
    return Finding(
        "speed",
        Verdict.INFO,
        f"{median:.3g} ms/step, {1e3 * median / len(atoms):.3g} µs/atom/step, "
        f"{per_day:.2g} ns/day at {timestep:g} fs",
        f"median of {len(times)} steps on this machine as it is loaded now",
        {"ms_per_step": median, "steps": len(times), "ns_per_day": per_day},
    )


def memory(
    atoms: Atoms, calculator: Any, *, sizes: int = 3, most: int = 20_000, seconds: float = 20.0
) -> Finding:
    """Peak memory at some supercells, its slope per atom, and an estimate of the largest one.

    The structure is doubled until `sizes` supercells have raised the peak: what the process took
    earlier and kept hides the smaller ones. A straight line through these peaks is carried on to
    80 % of the memory that is free now.

    Parameters
    ----------
    atoms : Atoms
    calculator : ase calculator
    sizes : int
        Supercells to measure, at least two.
    most : int
        Atoms of the largest supercell to try.
    seconds : float
        No further one is begun after this time.
    """
    check = "memory and largest supercell"
    rule = "a straight line through the peaks: an estimate, nothing of that size was run"
    if not atoms.pbc.any():
        peak = peak_memory(calculator, partial(forces_of, atoms, calculator))
        text = f"peak {human(peak)}; a structure that is not periodic has no supercells"
        return Finding(check, Verdict.INFO, text, "", {"peak_bytes": peak})
    counts, peaks = measured_peaks(atoms, calculator, sizes, most, seconds)
    measured = ", ".join(f"{human(p)} at {n} atoms" for n, p in zip(counts, peaks, strict=True))
    free = free_memory(calculator)
    values = {"atoms": counts, "peak_bytes": peaks, "free_bytes": free}
    if len(counts) < 2:
        text = f"peak {measured}" if counts else f"peak {human(occupied_memory(calculator))}"
        reason = f"too little growth up to {most} atoms or {seconds:g} s to extrapolate"
        return Finding(check, Verdict.INFO, f"{text}: {reason}", rule, values)
    slope, base = (float(x) for x in np.polyfit(counts, peaks, 1))
    # what is in use already counts towards the peak
    budget = USABLE * free + occupied_memory(calculator)
    limit = int(max(budget - base, 0.0) / slope)
    dimensions = int(atoms.pbc.sum())
    n = largest_repeat(limit, len(atoms), dimensions)
    shape = "×".join(str(n if periodic else 1) for periodic in atoms.pbc)
    estimate = f"{shape}, {n**dimensions * len(atoms):,} atoms," if n else "not even this structure"
    return Finding(
        check,
        Verdict.INFO if n else Verdict.WARN,
        f"peak {measured}; {human(slope)}/atom; estimate: {estimate} in {USABLE:.0%} of the "
        f"{human(free)} free",
        rule,
        values | {"bytes_per_atom": slope, "largest_atoms": limit, "largest_repeat": n},
    )


def measured_peaks(
    atoms: Atoms, calculator: Any, sizes: int, most: int, seconds: float
) -> tuple[list[int], list[int]]:
    """Numbers of atoms and peaks in bytes of supercells that raised the peak."""
    counts: list[int] = []
    peaks: list[int] = []
    cell = bare(atoms)
    deadline = time.monotonic() + seconds
    while len(counts) < sizes and len(cell) <= max(most, len(atoms)):
        before = occupied_memory(calculator)
        peak = peak_memory(calculator, partial(forces_of, cell, calculator))
        if peak > before + NOISE:
            counts.append(len(cell))
            peaks.append(peak)
        if time.monotonic() > deadline:
            break
        cell = doubled(cell)
    return counts, peaks


def doubled(atoms: Atoms) -> Atoms:
    """Twice the structure, along the shortest of its periodic vectors."""
    lengths = np.where(atoms.pbc, atoms.cell.lengths(), np.inf)
    repeats = [1, 1, 1]
    repeats[int(np.argmin(lengths))] = 2
    return atoms.repeat(repeats)


def largest_repeat(largest_count: int, n_atoms: int, dimensions: int) -> int:
    """Largest n for which n repeats along each periodic direction stay within a number of atoms."""
    n = math.floor((largest_count / n_atoms) ** (1.0 / dimensions))
    # the root of a perfect power may fall short of it
    return n + 1 if (n + 1) ** dimensions * n_atoms <= largest_count else n


def forces_of(atoms: Atoms, calculator: Any) -> None:
    """One calculation of energy and forces."""
    work = bare(atoms)
    work.calc = calculator
    work.get_forces()


def cuda_device(calculator: Any) -> Any | None:
    """The CUDA device that a calculator names as its own; None for another."""
    device = str(getattr(calculator, "device", ""))
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.device(device)


def synchronize(calculator: Any) -> None:
    """Wait for the calculator's GPU, if it has one."""
    device = cuda_device(calculator)
    if device is not None:
        import torch

        torch.cuda.synchronize(device)


def peak_memory(calculator: Any, work: Callable[[], None]) -> int:
    """Largest memory in bytes that is in use during `work`: of the GPU, or of this process.

    On Linux the high-water mark of the process is reset first; elsewhere it is that of its life,
    which grows with sizes that grow.
    """
    device = cuda_device(calculator)
    if device is not None:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        try:
            reset.write_text("5", encoding="ascii")
        except OSError:
            # not permitted in some containers: the mark of the process' life serves as well
            pass
        else:
            work()
            return status_bytes("VmHWM")
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def status_bytes(key: str) -> int:
    """A line of ``/proc/self/status`` in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    raise KeyError(key)


def occupied_memory(calculator: Any) -> int:
    """Memory in bytes that the GPU, or this process, holds now."""
    device = cuda_device(calculator)
    if device is not None:
        import torch

        return int(torch.cuda.memory_allocated(device))
    if Path("/proc/self/status").exists():
        return status_bytes("VmRSS")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def free_memory(calculator: Any) -> int:
    """Memory in bytes that is free now: of the GPU, or of the machine and its control group."""
    device = cuda_device(calculator)
    if device is not None:
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # what the allocator holds without using it is free as well
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + held)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
        free = 1024 * int(fields["MemAvailable"].split()[0])
        return min(free, control_group_memory(free))
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") - occupied_memory(calculator)


def control_group_memory(otherwise: int) -> int:
    """Memory in bytes that the control group (cgroup v2) of a container leaves; or `otherwise`."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = int((root / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return otherwise  # no such group
    return otherwise if limit == "max" else max(int(limit) - used, 0)


def human(n_bytes: float) -> str:
    """A size with its unit."""
    for unit in ("B", "kB", "MB"):
        if abs(n_bytes) < 1000.0:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000.0
    return f"{n_bytes:.3g} GB"
