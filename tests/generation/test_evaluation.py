"""The measures tell good proposals from random ones; the verb writes them side by side."""

import csv
import math
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from pet_calc.cli import main
from pet_calc.generation import evaluation
from pet_calc.generation.evaluation import measure
from pet_calc.io.unimat import crystal_from_atoms

SALTS = [bulk(f, "rocksalt", a=a) for f, a in (("NaCl", 5.64), ("MgO", 4.21), ("KBr", 6.6))]
REFERENCES = [crystal_from_atoms(a) for a in SALTS]


def test_perfect_and_random_proposals(monkeypatch) -> None:
    def perfect(source, references, n, seed, sampler=None):
        return [[a.copy() for _ in range(n)] for a in references]

    plain = measure("random", REFERENCES, 2, seed=1)
    monkeypatch.setattr(evaluation, "proposals_for", perfect)
    best = measure("perfect", REFERENCES, 2)
    assert best.made == best.apart_half_angstrom == best.apart_half_radii == best.coverage == 1.0
    assert best.unique == 0.5  # the second is a copy of the first
    assert best.p1 == 0.0
    assert best.density_distance == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(best.match_rate)
    assert plain.p1 > 0.3
    assert plain.unique == 1.0
    assert plain.density_distance > 0.01


def test_broken_proposals_count_against_the_source(monkeypatch) -> None:
    close = SALTS[0].copy()
    close.positions[1] = close.positions[0] + [0.2, 0, 0]
    monkeypatch.setattr(evaluation, "proposals_for", lambda *_: [[close, ValueError("none")]])
    found = measure("broken", REFERENCES[:1], 2)
    assert found.made == 0.5
    assert found.apart_half_angstrom == found.apart_half_radii == 0.0
    assert found.coverage == 0.0


def test_match_rate() -> None:
    pytest.importorskip("pymatgen", reason="pymatgen is not installed")
    from pet_calc.generation.matching import Matcher

    matcher = Matcher()
    turned = SALTS[0].repeat((2, 1, 1))
    turned.rotate(20, "x", rotate_cell=True)
    turned.rattle(0.02, seed=0)
    assert 0 < matcher.rms(SALTS[0], turned) < 0.05
    assert matcher.rms(SALTS[0], bulk("NaCl", "cesiumchloride", a=3.4)) is None


def test_verb(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write("salts.extxyz", SALTS)
    options = ["random", "--references", "salts.extxyz", "--n", "2", "--no-match", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["pet-calc", "evaluate-generator", *options])
    main_code(main)
    with (tmp_path / "out/evaluation.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["source"] == "random"
    assert row["compositions"] == "3"
    assert np.isfinite(float(row["coverage"]))
    assert main_code(main) == 1
    assert "already holds" in capsys.readouterr().err


def main_code(function) -> int:
    try:
        function()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
