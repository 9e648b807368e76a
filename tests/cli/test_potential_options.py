"""Options of a potential reach it: committees with guards, symmetry, heads; and are recorded."""

import hashlib
import sys
import tomllib

import numpy as np
import pytest
from ase.io import read, write
from calculators.small_potentials import liquid, publish, rare_pet, small_pet

from pet_calc import PETCalculator
from pet_calc.cli import main
from pet_calc.io.models.weights import save_model


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run ``pet-calc`` in a folder with two potentials and a structure; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        save_model(tmp_path / name, small_pet(seed=seed))
    save_model(tmp_path / "direct", rare_pet(direct_forces=True))
    write("water.xyz", liquid())

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pet-calc", *" ".join(words).split()])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


MD = "md water.xyz --steps 2 --frame-interval 1 --timestep 0.1 --dtype float64"


def test_a_committee_runs_and_its_guard_stops(command, capsys, tmp_path):
    assert command(MD, "--model a,b --out mean") == 0
    frame = read("mean/trajectory.traj", index=0)
    expected = PETCalculator(["a", "b"], dtype="float64").get_property("energy", frame)
    assert frame.get_potential_energy() == pytest.approx(expected, abs=1e-9)
    settings = tomllib.loads((tmp_path / "mean/md.toml").read_text(encoding="utf-8"))
    assert settings["model"] == "a,b"
    assert len(settings["provenance"]["sha256"]) == 2
    # random weights disagree by far more than this
    assert command(MD, "--model a,b --guard forces_uncertainty=1e-3 --out stopped") == 1
    assert "puts the error of the force on atom" in capsys.readouterr().err
    assert command(MD, "--model a,b --guard energy_uncertainty=1e-9 --out stopped2") == 1
    assert "puts its own error at" in capsys.readouterr().err
    # and a limit that nothing reaches does not
    assert command(MD, "--model a,b --guard forces_uncertainty=1e3 --out passed") == 0
    again = read("passed/trajectory.traj", index=-1)
    assert np.array_equal(again.positions, read("mean/trajectory.traj", index=-1).positions)


def test_a_relaxation_stops_at_an_uncertainty(command, tmp_path):
    words = "relax water.xyz --fmax 1e9 --model a,b --guard"
    assert command(words, "forces_uncertainty=1e-3 --out stopped") == 1
    row = (tmp_path / "stopped/relax.csv").read_text(encoding="utf-8")
    assert "puts the error of the force on atom" in row
    assert command(words, "forces_uncertainty=1e3 --out passed") == 0


def test_symmetry_and_direct_heads(command, tmp_path):
    assert command(MD, "--model a --ecse quadrature --out turned") == 0
    assert command(MD, "--model a --out plain") == 0
    turned, plain = (
        read(f"{name}/trajectory.traj", index=0).get_potential_energy()
        for name in ("turned", "plain")
    )
    assert abs(turned - plain) > 1e-6
    settings = tomllib.loads((tmp_path / "turned/md.toml").read_text(encoding="utf-8"))
    assert settings["ecse"] == settings["provenance"]["ecse"] == "quadrature"
    assert command(MD, "--model direct --non-conservative forces --out direct_forces") == 0
    frame = read("direct_forces/trajectory.traj", index=0)
    calculator = PETCalculator("direct", dtype="float64", non_conservative="forces")
    found = frame.get_forces(apply_constraint=False)
    np.testing.assert_allclose(found, calculator.get_property("forces", frame), atol=1e-9)
    # a run that is continued with other heads is refused
    assert command(MD, "--model direct --resume --steps 3 --out direct_forces") == 1


@pytest.mark.parametrize(
    "words",
    [
        "md water.xyz --steps 1 --timestep 0.1",
        "relax water.xyz --steps 1 --fmax 1e9",
        "neb water.xyz moved.xyz --images 1 --steps 0 --no-relax",
        "eos water.xyz --no-relax --clamp-ions --points 5",
    ],
    ids=lambda words: words.split()[0],
)
def test_settings_name_the_potential_that_was_chosen(command, words, tmp_path, monkeypatch):
    publish(tmp_path / "shipped", water_v1="H O", salt_v1="Na Cl")
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (tmp_path / "shipped",))
    moved = liquid()
    moved.positions[0] += 0.1
    write("moved.xyz", moved)
    verb = words.split()[0]
    command(words, "--out out")
    settings = tomllib.loads((tmp_path / "out" / f"{verb}.toml").read_text(encoding="utf-8"))
    assert settings["model"] == settings["provenance"]["model"] == "water-v1"
    weights = (tmp_path / "shipped/water-v1/weights.safetensors").read_bytes()
    assert settings["provenance"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert settings["dtype"] == ("float32" if verb == "md" else "float64")
    assert "device" not in settings
