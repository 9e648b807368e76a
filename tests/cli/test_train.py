"""``pet-calc train`` as a user runs it."""

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from pet_calc.cli import app
from pet_calc.crystals.generation.generator import Generator
from pet_calc.models.pet import PETConfig
from pet_calc.training.potentials.config import TrainConfig

CONFIG = """
name = "toy"
validation_interval = 4
[model]
elements = [1, 8]
cutoff = 3.0
cutoff_width = 2.0
d_pet = 8
d_node = 12
d_head = 8
d_feedforward = 8
num_heads = 2
num_attention_layers = 1
num_gnn_layers = 1
input_encoding = "radial"
num_radial = 8
[data]
train = ["train.extxyz"]
test = ["train.extxyz"]
validation_frames = 2
[optimizer]
name = "adam"
[[stages]]
steps = 8
"""


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(6):
        atoms = Atoms("OH2", positions=np.eye(3) * 0.9 + 0.1 * generator.standard_normal((3, 3)))
        atoms.calc = SinglePointCalculator(
            atoms, energy=generator.normal(-440.0, 0.1), forces=generator.standard_normal((3, 3))
        )
        frames.append(atoms)
    ase.io.write(tmp_path / "train.extxyz", frames)
    (tmp_path / "train.toml").write_text(CONFIG)
    return tmp_path


def run(folder, *extra):
    return CliRunner().invoke(
        app, ["train", str(folder / "train.toml"), "--out", str(folder / "run"), *extra]
    )


def test_trains_and_prints_census_and_errors(folder):
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "labels found" in result.output
    assert "errors of the averaged weights" in result.output
    config = json.loads((folder / "run" / "model" / "config.json").read_text())
    assert config["training"]["steps"] == 8
    rows = (folder / "run" / "log.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows] == ["step", "4", "8"]
    assert (folder / "run" / "learning.png").read_bytes().startswith(b"\x89PNG")


def test_fits_uncertainties_and_prints_their_calibration(folder):
    (folder / "train.toml").write_text(CONFIG + "[uncertainty]\nmembers = 4\n")
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "uncertainty of the energy" in result.output
    assert (folder / "run" / "model" / "uncertainty.safetensors").is_file()
    config = json.loads((folder / "run" / "model" / "config.json").read_text())
    assert config["training"]["config"]["uncertainty"]["members"] == 4


def test_fine_tunes_and_prints_what_changed(folder):
    assert run(folder).exit_code == 0
    (folder / "tune.toml").write_text(
        CONFIG
        + f'[fine_tune]\nfrom = "{folder / "run" / "model"}"\nmethod = "lora"\nrank = 2\n'
        + 'replay = ["train.extxyz"]\nreplay_fraction = 0.5\nreplay_test = ["train.extxyz"]\n'
    )
    result = CliRunner().invoke(
        app, ["train", str(folder / "tune.toml"), "--out", str(folder / "tuned")]
    )
    assert result.exit_code == 0, result.output
    assert "4 frames to train on and 6 old ones, 4 of them in an epoch" in result.output
    assert "before and after the fine-tuning" in result.output
    assert "energy, zero fitted" in result.output
    assert (folder / "tuned" / "fine_tuning.csv").is_file()


def test_fine_tunes_with_no_more_than_a_potential_and_data(folder):
    assert run(folder).exit_code == 0
    model = folder / "run" / "model"
    (folder / "tune.toml").write_text(
        f"""
[fine_tune]
from = "{model}"
[data]
train = ["train.extxyz"]
validation_frames = 2
"""
    )
    result = CliRunner().invoke(
        app,
        ["train", str(folder / "tune.toml"), "--out", str(folder / "tuned"), "--stop-after", "2"],
    )
    assert result.exit_code == 0, result.output
    config = TrainConfig.from_toml(folder / "tune.toml")
    given = json.loads((model / "config.json").read_text())["training"]["config"]["model"]
    assert config.model.to_dict() == PETConfig.from_dict(given).to_dict()
    assert config.name == "model-tuned"
    assert len(config.stages) == 1
    # what is given replaces what the potential has
    (folder / "tune.toml").write_text(
        (folder / "tune.toml").read_text() + '[model]\nenergy_heads = ["energy", "other"]\n'
    )
    assert TrainConfig.from_toml(folder / "tune.toml").model == replace(
        config.model, energy_heads=("energy", "other")
    )


def test_uncertainties_that_a_fine_tuning_loses_are_named(folder):
    (folder / "train.toml").write_text(CONFIG + "[uncertainty]\nmembers = 4\n")
    assert run(folder).exit_code == 0
    tuned = CONFIG + f'[fine_tune]\nfrom = "{folder / "run" / "model"}"\n'
    for more, lost in (("", True), ("[uncertainty]\nmembers = 4\n", False)):
        (folder / "train.toml").write_text(tuned + more)
        out = ["--out", str(folder / f"tuned-{lost}")]
        result = CliRunner().invoke(app, ["train", str(folder / "train.toml"), *out])
        assert result.exit_code == 0, result.output
        said = " ".join(result.output.split())
        assert ("a table [uncertainty] in the configuration fits them" in said) == lost


def test_a_file_that_does_not_exist_is_said_to(folder):
    (folder / "train.toml").unlink()
    result = run(folder)
    assert isinstance(result.exception, ValueError)
    assert "train.toml: the file does not exist" in str(result.exception)
    assert not (folder / "run").exists()


def test_trains_a_generator_that_chooses_compositions(tmp_path):
    cells = [bulk("CuAu", "rocksalt", a=4.2 + 0.01 * k) for k in range(8)]
    ase.io.write(tmp_path / "salt.extxyz", cells)
    (tmp_path / "train.toml").write_text(
        """
name = "salt"
files = ["salt.extxyz"]
steps = 6
batch = 4
[model]
width = 16
heads = 2
layers = 1
slots = 2
[occupancy]
epochs = 2
"""
    )
    assert "goes on from" in run(tmp_path, "--stop-after", "3").output
    assert not (tmp_path / "run" / "model").exists()
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "generator:" in result.output
    generator = Generator.load(tmp_path / "run" / "model")
    assert generator.occupancy is not None
    header, last = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert header == "step,loss,seconds"
    assert last.startswith("6,")
    assert (tmp_path / "run" / "learning.png").is_file()


def test_stopped_run_goes_on(folder):
    assert "goes on from" in run(folder, "--stop-after", "3").output
    assert not (folder / "run" / "model").exists()
    result = run(folder)
    assert result.exit_code == 0
    assert (folder / "run" / "model" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 8", "", "missing in stages"),
        ("steps = 8", "steps = 8\nstep = 1", "unknown option"),
        ('name = "adam"', 'name = "sgd"', "must be 'adam' or 'soap'"),
        ("train.extxyz", "absent.extxyz", "no data file"),
        ("[[stages]]", "[stages", "stages"),
    ],
)
def test_bad_configuration_is_an_error_and_leaves_nothing(folder, old, new, message):
    (folder / "train.toml").write_text(CONFIG.replace(old, new))
    result = run(folder)
    assert isinstance(result.exception, ValueError)
    assert result.exit_code != 0
    if message != "stages":
        assert message in str(result.exception)
    assert not (folder / "run").exists()
