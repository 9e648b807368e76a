"""All bars of a GPU in one run of less than eight minutes; measured, or why not.

    python benchmarks/gpu.py --out benchmarks/results/gpu

Writes ``gpu.csv`` (every measurement with hardware, precision and sizes), ``summary.csv`` (each bar
beside what was measured) and ``gpu.log`` (what the parts had to say). Each part of `gpu_parts.py`
runs in a process of its own with limits of time and memory: one that fails, even by breaking the
device, is reported with its error, keeps what it had measured, and leaves the others alone.

Kernels in Triton are opt-in in the package; here every part measures without and with them, and the
better one counts, but for the precisions that one of the two has alone. What else is installed
(metatrain, pet-kokkos) is compared with.

``--device cpu --tiny`` runs everything on a few atoms in a minute or two, to see that it runs; its
figures mean nothing, and Triton's are left out.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from gpu_parts import PARTS, Setting
from pet_step import processor
from rich.console import Console
from rich.table import Table

from pet_calc import __version__

Row = dict[str, object]

#: Seconds for all parts together.
LIMIT = 460.0


@dataclass(frozen=True)
class Bar:
    """What a figure should be.

    Attributes
    ----------
    what : str
    limit : float
    part : str
        The part that measures it.
    least : bool
        The figure should not be less than the limit, else not more.
    """

    what: str
    limit: float
    part: str
    least: bool = False

    def met(self, value: float) -> bool:
        """Whether a figure reaches the bar."""
        return value >= self.limit if self.least else value <= self.limit


BARS = {
    "8a": Bar("float32, 12,288 atoms: µs per atom", 4.9, "saturated"),
    "8b": Bar("three products of TF32, 12,288 atoms: µs per atom", 2.7, "saturated"),
    "8c": Bar("TF32, 12,288 atoms: µs per atom", 1.8, "saturated"),
    "8d": Bar("bfloat16, 12,288 atoms: µs per atom", 1.2, "saturated"),
    "8e": Bar("float32 forces: deviation relative to the largest", 1e-5, "accuracy"),
    "8f": Bar("three products of TF32: deviation of forces as above", 1e-5, "accuracy"),
    "9a": Bar("192 atoms, graph: ms per step", 1.5, "small"),
    "9b": Bar("192 atoms, graph: times faster than eager", 3.0, "small", least=True),
    "9c": Bar("192 atoms, graph: times faster than metatrain", 3.0, "peers", least=True),
    "10a": Bar("list and preparation: largest share of a step at any size", 0.10, "lists"),
    "10b": Bar("waits of the host within a step", 0.0, "small"),
    "11a": Bar("layerwise frames, 192 atoms: times the plain step", 2.5, "frames"),
    "11b": Bar("layerwise frames, saturated: times the plain step per 1.15 views", 1.0, "frames"),
    "12a": Bar("fused attention: times faster than SDPA with a mask", 2.0, "attention", least=True),
    "12b": Bar("fused attention: memory beyond tensors, in attention matrices", 0.02, "attention"),
    "64": Bar("64 atoms: times faster than metatrain", 9.0, "peers", least=True),
    "648": Bar("648 atoms: times faster than metatrain", 4.0, "peers", least=True),
    "1728": Bar("1,728 atoms: times faster than metatrain", 3.0, "peers", least=True),
}  # fmt: skip


def rows_of(name: str, setting: Setting) -> Iterator[Row]:
    """Measurements of a part, which ends with its error if it fails."""
    if setting.cuda:
        torch.cuda.set_per_process_memory_fraction(setting.memory)
    try:
        for row in PARTS[name].measure(setting):
            if setting.cuda:
                row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
                torch.cuda.reset_peak_memory_stats()
            yield {"part": name} | row
    except Exception as error:
        traceback.print_exc()
        yield {"part": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def in_a_process(name: str, options: argparse.Namespace, limit: float, log: Path) -> list[Row]:
    """Measurements of a part in a process of its own, which is ended after `limit` seconds."""
    command = [sys.executable, __file__, "--part", name, "--device", options.device]
    command += ["--memory", str(options.memory)] + ["--tiny"] * options.tiny
    with tempfile.TemporaryFile("w+") as output, log.open("a") as errors:
        errors.write(f"--- {name}\n")
        errors.flush()
        child = subprocess.Popen(command, stdout=output, stderr=errors)
        problem = ""
        try:
            if child.wait(timeout=limit):
                problem = f"the process ended with status {child.returncode}"
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            problem = f"stopped after {limit:.0f} s"
        output.seek(0)
        rows = []
        for line in output:
            if line.startswith('{"part"'):
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:  # cut off when it was stopped
                    problem = problem or "a line was cut off"
        if problem and not any("error" in r for r in rows):
            rows.append({"part": name, "error": problem})
        return rows


def summary(rows: list[Row], parts: list[str], *, tiny: bool = False) -> list[Row]:
    """Each bar with the best that was measured for it; a tiny run meets none."""
    found: list[Row] = []
    for key, bar in BARS.items():
        measured = [r for r in rows if r.get("bar") == key and r.get("value") is not None]
        row: Row = {
            "bar": key,
            "what": bar.what,
            "limit": f"{'>=' if bar.least else '<='} {bar.limit:g}",
        }
        if measured:
            pick = max if bar.least else min
            best = pick(measured, key=lambda r: float(str(r["value"])))
            value = float(str(best["value"]))
            met = "tiny" if tiny else "yes" if bar.met(value) else "no"
            row |= {"measured": f"{value:.4g}", "met": met, "by": best.get("contestant", "")}
        else:
            reasons = [r.get("error") or r.get("skipped") for r in rows if r["part"] == bar.part]
            why = next((str(r) for r in reasons if r), "not measured")
            if bar.part not in parts:
                why = "left out"
            row |= {"measured": "", "met": "not measured", "by": why}
        found.append(row)
    return found


def hardware(device: str) -> Row:
    """Where and with what it was measured."""
    cuda = device.startswith("cuda")
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = ""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "pet_calc": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "triton": triton,
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
    }


def write(path: Path, rows: list[Row]) -> None:
    """A table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
        writer.writeheader()
        writer.writerows(rows)


def report(bars: list[Row], console: Console) -> None:
    """Print the bars."""
    table = Table(title="bars of a GPU")
    for column in ("bar", "what", "limit", "measured", "met", "by"):
        table.add_column(column, overflow="fold")
    for row in bars:
        color = {"yes": "green", "no": "red"}.get(str(row["met"]), "yellow")
        cells = [str(row[k]) for k in ("bar", "what", "limit", "measured", "met", "by")]
        cells[4] = f"[{color}]{cells[4]}"
        table.add_row(*cells)
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a few atoms, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--memory", type=float, default=0.8, help="share of the device's memory")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all parts")
    parser.add_argument("--one-process", action="store_true", help="do not isolate the parts")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    setting = Setting(torch.device(options.device), options.tiny, options.memory)
    if options.part:
        for row in rows_of(options.part, setting):
            print(json.dumps(row), flush=True)
        return 0
    if setting.cuda and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; use --device cpu --tiny to try the script")
    console, start = Console(), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "gpu.log"
    log.write_text("")
    where, rows = hardware(options.device), []
    for name in options.only:
        left = options.limit - (time.monotonic() - start)
        begin = time.monotonic()
        if left < 5:
            found: list[Row] = [{"part": name, "skipped": "no time was left"}]
        elif options.one_process:
            found = list(rows_of(name, setting))
        else:
            found = in_a_process(name, options, min(left, PARTS[name].seconds), log)
        rows += [r | where for r in found]
        bars = summary(rows, options.only, tiny=options.tiny)
        # after each part, so that nothing is lost if the run is stopped
        write(options.out / "gpu.csv", rows)
        write(options.out / "summary.csv", [b | where for b in bars])
        problems = [str(r["error"]) for r in found if "error" in r]
        took = time.monotonic() - begin
        console.print(
            f"{name}: {took:.0f} s, {len(found)} rows {'; '.join(problems)}", markup=False
        )
    report(bars, console)
    return int(any("error" in r for r in rows))


if __name__ == "__main__":
    sys.exit(main())
