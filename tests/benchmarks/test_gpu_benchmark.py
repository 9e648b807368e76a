"""The script of the GPU's bars: it runs on a few atoms, and no part takes another down."""

import csv
import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of this installation")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in ("gpu", "gpu_parts"):
        sys.modules.pop(name, None)


def run(gpu, folder, *options):
    """Status, measurements and bars."""
    status = gpu.main(["--device", "cpu", "--tiny", "--out", str(folder), *options])
    tables = []
    for name in ("gpu", "summary"):
        with (folder / f"{name}.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert (folder / "gpu.log").is_file()
    return status, *tables


def test_every_part_runs(gpu, tmp_path):
    status, rows, bars = run(gpu, tmp_path, "--one-process")
    assert status == 0
    assert {r["part"] for r in rows} == set(gpu.PARTS)
    assert all(r["torch"] and r["device"] for r in rows)
    by_bar = {b["bar"]: b for b in bars}
    assert list(by_bar) == list(gpu.BARS)
    for key in ("8a", "8e", "9a", "9b", "10a", "11a", "11b"):
        assert float(by_bar[key]["measured"]) > 0
        assert by_bar[key]["met"] == "tiny"
    assert by_bar["12a"]["met"] == "not measured"
    assert "cpu" in by_bar["12a"]["by"] or "not installed" in by_bar["12a"]["by"]
    for key in ("8b", "8d", "8f"):  # of Triton's kernels alone
        assert by_bar[key]["met"] == "not measured"
        assert "cpu" in by_bar[key]["by"] or "not installed" in by_bar[key]["by"]
    assert float(by_bar["8e"]["measured"]) < 1e-4


def test_a_part_that_fails_keeps_what_it_has(gpu, tmp_path, monkeypatch):
    def failing(setting):
        yield {"quantity": "ms", "value": 1.0, "bar": "9a", "contestant": "here"}
        raise RuntimeError("an illegal memory access\nand more")

    monkeypatch.setitem(gpu.PARTS, "small", gpu.PARTS["small"].__class__(failing, 10.0))
    options = ("--one-process", "--only", "small", "embedding")
    status, rows, bars = run(gpu, tmp_path, *options)
    assert status == 1
    by_bar = {b["bar"]: b for b in bars}
    assert by_bar["9a"]["measured"] == "1"
    assert by_bar["9b"]["by"] == "RuntimeError: an illegal memory access"
    assert by_bar["12a"]["by"] == "left out"
    assert any(r["part"] == "embedding" and r["value"] for r in rows)


@pytest.mark.slow
def test_processes_and_their_limits(gpu, tmp_path, monkeypatch):
    status, rows, _ = run(gpu, tmp_path, "--only", "embedding")
    assert status == 0
    assert any(r["value"] for r in rows)
    slow = gpu.PARTS["embedding"].__class__(gpu.PARTS["embedding"].measure, 0.2)
    monkeypatch.setitem(gpu.PARTS, "embedding", slow)
    status, rows, _ = run(gpu, tmp_path, "--only", "embedding", "attention", "--limit", "5.1")
    assert status == 1
    assert [r.get("error") or r.get("skipped") for r in rows] == [
        "stopped after 0 s",
        "no time was left",
    ]


def test_bars(gpu):
    rows = [
        {"part": "small", "bar": "9a", "value": v, "contestant": c}
        for v, c in ((2.0, "a"), (1.2, "b"), (None, "c"))
    ]
    rows.append({"part": "small", "bar": "9b", "value": 2.9})
    found = {b["bar"]: b for b in gpu.summary(rows, ["small"])}
    assert (found["9a"]["met"], found["9a"]["by"], found["9a"]["measured"]) == ("yes", "b", "1.2")
    assert found["9b"]["met"] == "no"
