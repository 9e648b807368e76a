import csv
import sys
import tomllib

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from calculators.small_potentials import liquid, small_pet

from pet_calc.cli import main
from pet_calc.io.models.weights import save_model

EMT = ("--calculator", "ase.calculators.emt:EMT")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run ``pet-calc relax`` in this process; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pet-calc", "relax", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


@pytest.fixture
def files(tmp_path):
    paths = []
    for seed, symbol in enumerate(("Cu", "Ni")):
        frames = [bulk(symbol, cubic=True) for _ in range(2)]
        for k, atoms in enumerate(frames):
            atoms.rattle(0.03, seed=seed + 10 * k)
        paths.append(tmp_path / f"{symbol}.xyz")
        write(paths[-1], frames)
    return paths


def table(folder):
    with (folder / "relax.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_many_structures_in_one_call(command, files, tmp_path, capsys):
    (tmp_path / "bad.xyz").write_text("2\n\nCu 0 0 0\nCu 0 0 0.1\n")
    out = tmp_path / "out"
    assert command(*files, "bad.xyz", "gone.xyz", *EMT, "--out", out) == 1
    rows = table(out)
    assert [r["status"] for r in rows] == ["converged"] * 4 + ["failed"] * 2
    assert [r["frame"] for r in rows] == ["0", "1", "0", "1", "0", "0"]
    assert "nearly touch" in rows[4]["reason"]
    assert "no structure file" in rows[5]["reason"]
    assert {r["space_group_after_0.01"] for r in rows[:4]} == {"Fm-3m (225)"}
    assert len(read(out / "relaxed.extxyz", index=":")) == 4
    settings = tomllib.loads((out / "relax.toml").read_text(encoding="utf-8"))
    assert settings["fmax"] == 0.01
    assert settings["provenance"]["calculator"] == "ase.calculators.emt.EMT"
    text = capsys.readouterr()
    for part in ("one by one: EMT computes", "4 converged, 2 failed"):
        assert part in text.out
    assert "relaxation 4/5: " in text.err


def test_resume_does_only_the_rest(command, files, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(files[0], *EMT, "--out", out) == 0
    before = table(out)
    assert command(*files, *EMT, "--out", out, "--resume") == 0
    assert "2 structure(s)" in capsys.readouterr().out
    after = table(out)
    assert len(after) == 4
    assert after[:2] == before
    kept = contents(out)
    assert command(*files, *EMT, "--out", out, "--resume", "--fmax", 0.001) == 1
    assert "another fmax" in " ".join(capsys.readouterr().err.split())
    assert contents(out) == kept


def test_out_of_time_and_resumed(command, files, tmp_path):
    out = tmp_path / "out"
    assert command(*files, *EMT, "--out", out, "--total-seconds", 1e-6) == 1
    assert {r["status"] for r in table(out)} == {"not started"}
    assert command(*files, *EMT, "--out", out, "--resume") == 0
    assert {r["status"] for r in table(out)} == {"converged"}


def test_options_from_the_settings_of_a_run(command, files, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    assert command(files[0], *EMT, "--cell", "isotropic", "--index", 0, "--out", out) == 0
    assert command(files[0], "--config", out / "relax.toml", "--out", again) == 0
    assert len(table(out)) == 1
    for one, other in zip(table(out), table(again), strict=True):
        assert one | {"seconds": ""} == other | {"seconds": ""}


def test_batch_of_a_potential(command, tmp_path, capsys):
    save_model(tmp_path / "model", small_pet())
    frames = [liquid(1, seed=s, length=5.0) for s in range(3)]
    write(tmp_path / "water.xyz", frames)
    options = ("water.xyz", "--model", "model", "--steps", 3, "--fmax", 1e-6)
    assert command(*options, "--out", "a") == 1
    assert "one by one" not in capsys.readouterr().out
    assert command(*options, "--no-batch", "--out", "b") == 1
    for one, other in zip(
        read("a/relaxed.extxyz", ":"), read("b/relaxed.extxyz", ":"), strict=True
    ):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-10)
    settings = tomllib.loads((tmp_path / "a" / "relax.toml").read_text(encoding="utf-8"))
    assert settings["dtype"] == settings["provenance"]["dtype"] == "float64"
    assert len(settings["provenance"]["sha256"]) == 64
    assert {r["potential"] for r in table(tmp_path / "a")} == {"model"}


def test_earlier_run_is_kept(command, files, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(files[0], *EMT, "--out", out) == 0
    before = contents(out)
    assert command(files[0], *EMT, "--out", out) == 1
    assert "already holds" in " ".join(capsys.readouterr().err.split())
    assert command("gone.xyz", *EMT, "--out", out, "--overwrite") == 1
    assert contents(out) == before
    assert command(files[0], *EMT, "--out", out, "--overwrite") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("not a structure\n", "cannot be read"),
        ("0\n\n", "at least one atom"),
        ("1\n\nO nan 0 0\n", "must be finite"),
        ("2\n\nO 0 0 0\nO 0 0 0.1\n", "nearly touch"),
        ("1\n\nCu 0 0 0\n", "covers H, O"),
        ('1\nLattice="0 0 0 0 0 0 0 0 0" pbc="T T T"\nO 0 0 0\n', "lattice vector"),
        ('1\nLattice="4 0 0 8 0 0 0 0 4" pbc="T T T"\nO 0 0 0\n', "linearly dependent"),
    ],
    ids=["empty", "garbage", "no-atoms", "nan", "overlap", "element", "zero-cell", "singular"],
)
def test_bad_structures_end_with_a_message(command, content, message, tmp_path, capsys):
    save_model(tmp_path / "model", small_pet())
    (tmp_path / "bad.xyz").write_text(content)
    out = tmp_path / "out"
    out.mkdir()
    (out / "relax.csv").write_text("earlier")
    assert command("bad.xyz", "--model", "model", "--out", out, "--overwrite") == 1
    err = " ".join(capsys.readouterr().err.split())
    assert message in err
    assert "Traceback" not in err
    assert contents(out) == {"relax.csv": b"earlier"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--optimizer", "cg"), 2),
        (("--resume", "--overwrite"), 2),
        (("--calculator", "nowhere:Calculator"), 2),
        (("--fmax", "0", *EMT), 1),
        (("--pressure", "1", *EMT), 1),
        (("--batch", *EMT), 1),
        (("--total-seconds", "-1", *EMT), 1),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else str(x),
)
def test_wrong_usage(command, files, options, code, tmp_path):
    assert command(*files, *options, "--out", tmp_path / "out") == code
    assert not (tmp_path / "out" / "relax.csv").exists()


def test_help_has_an_example(command, capsys):
    assert command("--help") == 0
    assert "pet-calc relax POSCAR --cell free" in capsys.readouterr().out
