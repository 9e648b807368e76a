"""``pet-calc phonons`` and ``pet-calc qha`` as a user meets them."""

import json
import sys
import tomllib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from pet_calc.cli import main
from pet_calc.workflows.phonons import PHONON_FILES, QHA_FILES

pytest.importorskip("phonopy")

EMT = ("--calculator", "ase.calculators.emt:EMT")
QUICK = ("--min-length", 7, "--mesh", 20, "--t-step", 100)


@pytest.fixture
def command(monkeypatch):
    """Run ``pet-calc`` in this process; returns the exit code."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pet-calc", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


def structure(tmp_path, atoms, name="start.xyz"):
    path = tmp_path / name
    write(path, atoms)
    return path


def test_phonons(command, tmp_path, capsys):
    copper = structure(tmp_path, bulk("Cu", cubic=True))
    out = tmp_path / "out"
    assert command("phonons", copper, *EMT, *QUICK, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {"phonons.toml", *PHONON_FILES}
    captured = capsys.readouterr()
    assert "Fm-3m" in captured.err
    text = captured.out
    for part in ("T1u", "asymmetry removed", "zero-point energy"):
        assert part in text
    settings = tomllib.loads((out / "phonons.toml").read_text(encoding="utf-8"))
    assert settings["min_length"] == 7.0
    assert "phonopy" in settings["provenance"]["versions"]
    first = (out / "bands.csv").read_text(encoding="utf-8")

    # nothing is overwritten unasked, and the settings make the same run again
    assert command("phonons", copper, *EMT, *QUICK, "--out", out) == 1
    assert "already holds" in capsys.readouterr().err
    again = tmp_path / "again"
    assert command("phonons", copper, "--config", out / "phonons.toml", "--out", again) == 0
    second = (again / "bands.csv").read_text(encoding="utf-8")
    a, b = (
        np.genfromtxt(text.splitlines(), delimiter=",", skip_header=1) for text in (first, second)
    )
    np.testing.assert_allclose(a[:, 2:], b[:, 2:], atol=1e-5)


def test_born_file_and_explicit_supercell(command, tmp_path, capsys):
    alloy = structure(tmp_path, bulk("CuAl", "cesiumchloride", a=3.0))
    born = tmp_path / "BORN"
    born.write_text("14.4\n2 0 0 0 2 0 0 0 2\n1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n")
    options = (*EMT, *QUICK, "--supercell", "3 3 3", "--born", born)
    assert command("phonons", alloy, *options, "--out", tmp_path / "out") == 0
    assert "LO-TO splitting" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "phonons.json").read_text(encoding="utf-8"))
    assert summary["supercell_atoms"] == 54
    assert all(x > 0.1 for x in summary["lo_to_splitting_THz"].values())
    born.write_text("14.4\n2 0 0 0 2 0 0 0 2\n1 0 0 0 1 0 0 0 1\n")
    assert command("phonons", alloy, *options, "--out", tmp_path / "bad") == 1
    assert "BORN file" in capsys.readouterr().err


def test_imaginary_modes_are_a_warning(command, tmp_path, capsys):
    simple = structure(tmp_path, bulk("Cu", "sc", a=2.4))
    out = tmp_path / "out"
    assert command("phonons", simple, *EMT, *QUICK, "--out", out) == 0
    assert "imaginary modes" in capsys.readouterr().out
    assert not json.loads((out / "phonons.json").read_text(encoding="utf-8"))["stable"]


def test_qha(command, tmp_path, capsys):
    aluminum = structure(tmp_path, bulk("Al"))
    out = tmp_path / "out"
    options = (*EMT, *QUICK, "--supercell", "2 2 2", "--points", 5, "--t-max", 300, "--t-step", 50)
    assert command("qha", aluminum, *options, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {"qha.toml", *QHA_FILES}
    assert "thermal expansion" in capsys.readouterr().out
    again = tmp_path / "again"
    assert command("qha", aluminum, "--config", out / "qha.toml", "--out", again) == 0


def nan_positions():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1, 2] = np.nan
    return atoms


@pytest.mark.parametrize("verb", ["phonons", "qha"])
@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (molecule("H2O"), EMT, "periodicity in three dimensions"),
        (nan_positions(), EMT, "finite"),
        (bulk("Fe"), EMT, "EMT cannot compute Fe"),
        (bulk("Cu"), ("--model", "pet-water-v1"), "Cu"),
        (bulk("Cu"), (*EMT, "--supercell", "1 1 1"), "too small"),
        (bulk("Cu"), (*EMT, "--supercell", "2 2 two"), "whole numbers"),
        (bulk("Cu"), (*EMT, "--distance", "-1"), "distance"),
        (bulk("Cu", a=3.9), (*EMT, "--steps", 1), "must be relaxed"),
        (Atoms("Cu2", [(0, 0, 0)] * 2, cell=[3] * 3, pbc=True), EMT, "on top of each other"),
        (None, EMT, "no structure file"),
    ],
)
def test_bad_input(command, tmp_path, capsys, verb, atoms, options, message):
    path = structure(tmp_path, atoms) if atoms is not None else tmp_path / "absent.cif"
    out = tmp_path / "out"
    assert command(verb, path, *options, "--out", out) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(out.glob("*"))


def test_bad_files(command, tmp_path, capsys):
    copper = structure(tmp_path, bulk("Cu"))
    assert command("phonons", copper, *EMT, "--born", tmp_path / "absent") == 1
    assert "no file of Born charges" in capsys.readouterr().err
    unstable = structure(tmp_path, bulk("Cu", "sc", a=2.4), "sc.xyz")
    assert command("qha", unstable, *EMT, *QUICK, "--out", tmp_path / "out") == 1
    assert "real frequencies" in capsys.readouterr().err
