"""``pet-calc relax --resume`` after ``kill -9`` ends as the run that was never disturbed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write
from calculators.small_potentials import liquid, small_pet

from pet_calc.io.models.weights import save_model
from pet_calc.workflows.relax.journal import FRAMES, JOURNAL, TABLE, structure_digest

ROOT = Path(__file__).parents[2]
CODE = "from pet_calc.cli import main; main()"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def alloys(folder):
    """Ten crystals in two files, one of which EMT does not know; one by one."""
    for name, symbol, count in (("a", "Cu", 6), ("b", "Au", 3)):
        frames = [bulk(symbol, cubic=True) for _ in range(count)]
        for k, atoms in enumerate(frames):
            atoms.symbols[: k % 4] = "Ni"
            atoms.rattle(0.05, seed=k)
        write(folder / f"{name}.xyz", frames)
    write(folder / "c.xyz", bulk("Fe"))
    emt = ("--calculator", "ase.calculators.emt:EMT")
    return ("a.xyz", "c.xyz", "b.xyz", *emt, "--fmax", "1e-3"), 10


def waters(folder):
    """Twelve structures that move together, some in and some after the batch at the kill."""
    save_model(folder / "model", small_pet())
    write(folder / "water.xyz", [liquid(8, seed=k) for k in range(12)])
    options = ("--batch-edges", "2500", "--steps", "12", "--fmax", "1e-9")
    return ("water.xyz", "--model", "model", *options), 12


def start(folder, arguments, out):
    command = [sys.executable, "-c", CODE, "relax", *arguments, "--out", out, "--resume"]
    return subprocess.Popen(
        command, env=ENVIRONMENT, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def lines(path):
    """Whole lines of a file, torn ones not counted; 0 without a file."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def killed_runs(folder, make, kills, tolerance):
    """Kill one relaxation `kills` times, let it end, and compare with an undisturbed one."""
    arguments, n = make(folder)
    whole = start(folder, arguments, "whole")
    rng = np.random.default_rng()
    hit = 0
    for after in np.sort(rng.choice(n - 2, kills, replace=False)):
        process = start(folder, arguments, "killed")
        while process.poll() is None and lines(folder / "killed" / JOURNAL) < after:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.1))  # within a relaxation, or in the middle of a file
        hit += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert hit > 0.5 * kills
    assert start(folder, arguments, "killed").wait() == whole.wait() == 1  # not all converge
    assert_same(folder / "whole", folder / "killed", n, tolerance)


def assert_same(whole, killed, n, tolerance):
    """Every structure once, in the order of the input, with the same outcome."""
    tables = []
    for folder in (whole, killed):
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    keys = [(row["file"], row["frame"]) for row in tables[0]]
    assert len(keys) == len(set(keys)) == n
    for one, other in zip(*tables, strict=True):
        for name in one.keys() - {"seconds"}:
            assert same_value(one[name], other[name], tolerance), (name, one[name], other[name])
    frames = [read(folder / FRAMES, index=":") for folder in (whole, killed)]
    assert len(frames[0]) == sum(row["status"] != "failed" for row in tables[0])
    for one, other in zip(*frames, strict=True):
        assert (one.info["source"], one.info["frame"]) == (
            other.info["source"],
            other.info["frame"],
        )
        np.testing.assert_allclose(one.positions, other.positions, rtol=0, atol=tolerance)
        np.testing.assert_allclose(one.cell, other.cell, rtol=0, atol=tolerance)
        np.testing.assert_allclose(one.get_forces(), other.get_forces(), rtol=0, atol=tolerance)
    journals = [
        [json.loads(line)["row"] for line in (folder / JOURNAL).read_text().splitlines()]
        for folder in (whole, killed)
    ]
    for rows in journals:
        assert sorted((r["file"], str(r["frame"])) for r in rows) == sorted(keys)
    assert not list(killed.glob(".*"))


def same_value(one, other, tolerance):
    """Cells of a table: the same text, or numbers that agree."""
    if one == other:
        return True
    try:
        return abs(float(one) - float(other)) <= tolerance
    except ValueError:
        return False


def test_kill_9(tmp_path):
    killed_runs(tmp_path, alloys, 1, 0.0)
    assert_differences_are_seen(tmp_path / "whole", tmp_path / "other", 10)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "tolerance"), [(alloys, 0.0), (waters, 1e-8)])
def test_kill_9_five_times(make, tolerance, tmp_path):
    killed_runs(tmp_path, make, 5, tolerance)


def assert_differences_are_seen(whole, other, n):
    """The control: a lost frame, a doubled row, a coordinate that is off by 1e-12 Å."""
    for name, change in (
        (FRAMES, lambda text: "".join(text.splitlines(keepends=True)[6:])),
        (TABLE, lambda text: text + text.splitlines(keepends=True)[-1]),
        (FRAMES, moved),
    ):
        shutil.copytree(whole, other, dirs_exist_ok=True)
        assert_same(whole, other, n, 0.0)
        (other / name).write_text(change((whole / name).read_text()))
        with pytest.raises((AssertionError, ValueError)):
            assert_same(whole, other, n, 0.0)


def moved(text):
    """The frames with the first coordinate of the first atom moved."""
    lines = text.splitlines(keepends=True)
    symbol, x, rest = lines[2].split(maxsplit=2)
    lines[2] = f"{symbol} {float(x) + 1e-12!r} {rest}"
    return "".join(lines)


def test_digest_of_a_structure_knows_charge_and_constraints():
    """What changes the result is another structure, which a resumed run computes anew."""
    atoms = bulk("Cu", cubic=True)
    digests = {structure_digest(atoms)}
    atoms.info["name"] = "not a matter of the result"
    digests.add(structure_digest(atoms))
    assert len(digests) == 1
    for info in ({"charge": 1}, {"charge": -1}, {"spin_multiplicity": 2}):
        atoms.info = info
        digests.add(structure_digest(atoms))
    atoms.info = {}
    atoms.set_constraint(FixAtoms([0]))
    digests.add(structure_digest(atoms))
    atoms.set_constraint(FixAtoms([1]))
    digests.add(structure_digest(atoms))
    assert len(digests) == 6
