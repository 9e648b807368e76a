"""Every shipped potential is what its index, card, config and recorded results say."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms
from ase.data import chemical_symbols

from pet_calc import CrystalformerCalculator, PETCalculator, pretrained
from pet_calc.calculators import load_calculator
from pet_calc.errors import UnsupportedElementError
from pet_calc.io.models.domain import measure_domain
from pet_calc.io.models.expected import EXPECTED, compare_expected, read_expected
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import read_config
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data_config import DataSet
from pet_calc.training.potentials.loop import load_data

POTENTIALS = Path(__file__).resolve().parents[2] / "potentials"
ENTRIES = tomllib.loads((POTENTIALS / "index.toml").read_text(encoding="utf-8")).get(
    "potential", []
)
EMPTY = pytest.param(None, marks=pytest.mark.skip(reason="potentials/index.toml lists none yet"))


@pytest.fixture(params=ENTRIES or [EMPTY], ids=lambda e: e["name"] if e else "none")
def entry(request, monkeypatch):
    """A potential of the checkout's index."""
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (POTENTIALS,))
    return next(e for e in pretrained.list_potentials() if e.name == request.param["name"])


def test_files_have_the_digests_of_the_index(entry):
    assert {CONFIG, WEIGHTS} <= set(entry.sha256)
    for file, digest in entry.sha256.items():
        assert sha256(entry.folder / file) == digest, file


def test_card_agrees_with_index_and_config(entry):
    card = pretrained.read_card(entry.folder)
    potential = pretrained.load(entry)
    assert card.front["name"] == entry.name
    assert card.front["elements"] == list(entry.elements)
    parameters = sum(p.numel() for p in potential.model.parameters())
    assert card.front["parameters"] == parameters
    config = read_config(entry.folder)["config"]
    assert [chemical_symbols[z] for z in config["elements"]] == list(entry.elements)
    if "cutoff_A" in card.front:
        assert card.front["cutoff_A"] == config["cutoff"]
    if "sha256" in card.front:
        assert card.front["sha256"] == entry.sha256[WEIGHTS]
    for heading in (
        "Use",
        "Out of scope",
        "Known failures",
        "How it was checked",
        "How to retrain",
    ):
        assert f"## {heading}" in card.text, heading
    assert len(card.text.split()) > 100


def test_index_says_what_it_is_for(entry):
    assert entry.version > 0
    assert entry.summary
    assert entry.method
    assert entry.status in ("experimental", "stable")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recorded_results_are_reproduced(entry, dtype):
    recorded = read_expected(entry.folder)
    assert len(recorded["structures"]) >= 3
    assert any(s["stress"] is not None for s in recorded["structures"])
    deviations = compare_expected(entry.folder, pretrained.load(entry, dtype).model)
    assert deviations
    assert all(d.within for d in deviations), [d for d in deviations if not d.within]


def test_exactly_its_elements_are_accepted(entry):
    calculator = load_calculator(entry.name)
    for number in range(1, 119):
        atoms = Atoms(numbers=[number], positions=[[0, 0, 0]])
        atoms.calc = calculator
        if chemical_symbols[number] in entry.elements:
            atoms.get_potential_energy()
        else:
            with pytest.raises(UnsupportedElementError, match=entry.name):
                atoms.get_potential_energy()


def test_auto_finds_a_potential_of_the_architecture(entry):
    calculator_type = {"pet": PETCalculator, "crystalformer": CrystalformerCalculator}
    calculator = calculator_type[entry.architecture]("auto")
    atoms = Atoms(entry.elements[0], positions=[[0, 0, 0]])
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert calculator.potential.name.startswith(entry.architecture)


def test_files_are_small(entry):
    assert entry.size < 10_000_000
    for path in entry.folder.rglob("*"):
        assert path.stat().st_size < 20_000_000, path


def test_pictures_name_no_folder_of_a_machine(entry):
    """Their provenance holds the command; the one to repeat is that of the card."""
    for path in entry.folder.glob("*.png"):
        found = re.search(rb'"command": "([^"]*)"', path.read_bytes())
        if found is not None:
            assert not re.search(rb"(^| )/", found[1]), (path, found[1])


def test_what_is_needed_to_retrain_is_there(entry):
    assert {"README.md", CONFIG, WEIGHTS, EXPECTED, "train.toml"} <= {
        p.name for p in entry.folder.iterdir()
    }


def test_domain_is_that_of_the_training_data(entry, data_dir):
    """The recorded domain, measured again on the structures of the recipe."""
    config = TrainConfig.from_toml(entry.folder / "train.toml")
    config = replace(
        config,
        data=replace(config.data, sets=unprepared(config.data.sets)),
        stages=tuple(replace(s, loss=replace(s.loss, rise=0.0)) for s in config.stages),
    )
    splits = load_data(config, data_dir, beside=entry.folder)
    measured = measure_domain((f.atoms for f in splits.trained_on), config.model.cutoff)
    recorded = pretrained.load(entry).domain
    assert recorded is not None
    assert recorded.to_dict() == measured.to_dict()


def unprepared(sets: Sequence[DataSet]) -> tuple[DataSet, ...]:
    """Sets with the files whose labels `benchmarks/prepare_labels.py` changes: same structures.

    Disturbed copies of relaxed structures have labels of bounds alone and are no part of a domain.
    """
    found = []
    for source in sets:
        if source.file.startswith("prepared/"):
            name = source.file.removeprefix("prepared/")
            if name.startswith("rattled"):
                continue
            source = replace(source, file=f"general/{name.replace('.', '_1k.', 1)}")
        found.append(source)
    return tuple(found)
