"""Every shipped property model is what its index, card, config and recorded predictions say."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import bulk
from typer.testing import CliRunner

from pet_calc import pretrained
from pet_calc.cli import app
from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.properties.predictor import PropertyPredictor
from pet_calc.crystals.properties.recorded_predictions import compare_predictions
from pet_calc.crystals.training.card import measure_property_card
from pet_calc.crystals.training.property_config import PropertyTraining
from pet_calc.errors import IntegrityError
from pet_calc.io.models.expected import EXPECTED
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256

POTENTIALS = Path(__file__).resolve().parents[2] / "potentials"
ENTRIES = tomllib.loads((POTENTIALS / "index.toml").read_text(encoding="utf-8")).get("property", [])


def family_of(entry):
    """Its name without the version."""
    return pretrained.split_version(entry["name"])[0]


def version_of(entry):
    """The number at the end of its name."""
    return pretrained.split_version(entry["name"])[1]


@pytest.fixture(params=ENTRIES, ids=lambda e: e["name"])
def entry(request, monkeypatch):
    """A property model of the checkout's index."""
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (POTENTIALS,))
    return pretrained.find_property_model(request.param["name"])


def test_files_are_those_of_the_index_and_small(entry):
    assert {CONFIG, WEIGHTS} <= set(entry.sha256)
    for file, digest in entry.sha256.items():
        assert sha256(entry.folder / file) == digest, file
    assert {"README.md", EXPECTED, "train.toml"} <= {p.name for p in entry.folder.iterdir()}
    assert all(p.stat().st_size < 20_000_000 for p in entry.folder.iterdir())


def test_card_and_training_agree_with_the_model(entry):
    card = pretrained.read_card(entry.folder)
    model = load_property_model(entry.folder, entry.sha256)
    assert card.front["name"] == entry.name
    assert card.front["kind"] == "property"
    assert card.front["sha256"] == entry.sha256[WEIGHTS]
    assert card.front["parameters"] == sum(p.numel() for p in model.parameters())
    assert tuple(t.name for t in model.config.targets) == entry.targets
    training = PropertyTraining.from_toml(entry.folder / "train.toml")
    assert training.name == entry.name
    assert training.targets == model.config.targets
    assert training.members == len(model.members)
    for heading in ("Use", "Out of scope", "Known failures", "How to retrain"):
        assert f"## {heading}" in card.text, heading


def test_recorded_predictions_are_reproduced_and_others_noticed(entry, tmp_path):
    assert compare_predictions(entry) >= 3
    recorded = json.loads((entry.folder / EXPECTED).read_text())
    recorded["crystals"][0]["values"][entry.targets[0]] += 1e-3
    for file in (CONFIG, WEIGHTS):
        (tmp_path / file).write_bytes((entry.folder / file).read_bytes())
    (tmp_path / EXPECTED).write_text(json.dumps(recorded))
    with pytest.raises(IntegrityError, match="must predict"):
        compare_predictions(replace(entry, folder=tmp_path))


def test_numbers_of_the_card_are_measured_again(entry, data_dir):
    numbers = measure_property_card(entry, data_dir)
    assert len(numbers) >= len(entry.targets)
    assert all(n.within for n in numbers), [n for n in numbers if not n.within]


def test_auto_finds_it_and_a_known_crystal_is_in_its_domain(entry):
    atoms = bulk("MgO", "rocksalt", 4.21)
    for target in entry.targets:
        found = PropertyPredictor(target)(atoms)
        assert found.in_domain, found.reason
        swollen = atoms.copy()
        swollen.set_cell(1.6 * atoms.cell, scale_atoms=True)
        assert not PropertyPredictor(target)(swollen).in_domain


def test_commands_know_it(entry):
    listed = CliRunner().invoke(app, ["models", "list"], env={"COLUMNS": "200"})
    assert entry.name in listed.output
    assert str(entry.folder) in CliRunner().invoke(app, ["models", "path", entry.name]).output
    newest = max((e for e in ENTRIES if family_of(e) == entry.family), key=version_of)
    found = CliRunner().invoke(app, ["models", "path", entry.family]).output
    assert str(POTENTIALS / newest["name"]) in found
    shown = CliRunner().invoke(app, ["models", "show", entry.name])
    assert "## Out of scope" in shown.output
    verified = CliRunner().invoke(app, ["models", "verify", entry.name])
    assert verified.exit_code == 0, verified.output
