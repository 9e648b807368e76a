"""``pet-calc models``: list, show, path, verify."""

import json

import pytest
from ase.io import write
from calculators.small_potentials import flip_a_bit, liquid, publish
from typer.testing import CliRunner

from pet_calc.cli.models import models_app
from pet_calc.errors import IntegrityError, PotentialNotFoundError
from pet_calc.io.foreign.published import PUBLISHED
from pet_calc.io.models.expected import EXPECTED
from pet_calc.io.models.files import WEIGHTS
from pet_calc.pretrained import list_potentials


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An index of two potentials."""
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (tmp_path,))
    return publish(tmp_path, water_v1="H O", salt_v1="Na Cl")


@pytest.fixture
def run(monkeypatch):
    """Run a verb and return what it prints; its errors come through."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        result = CliRunner().invoke(models_app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


def test_list_shows_each_potential_with_its_errors(root, run):
    lines = run("list").splitlines()
    line = next(line for line in lines if "water-v1" in line)
    assert line.split() == ["water-v1", "H", "O", "random", "stable", "0.5", "60"]
    assert any("salt-v1" in line for line in lines)
    assert not any("pet-mad-s" in line for line in lines)


def test_list_tells_more_with_all(root, run):
    text = (root / "index.toml").read_text(encoding="utf-8")
    text = text.replace('name = "salt-v1"', 'name = "salt-v1"\nstatus = "deprecated"')
    (root / "index.toml").write_text(text, encoding="utf-8")
    assert "salt-v1" not in run("list")
    text = run("list", "--all")
    for part in ("salt-v1", "deprecated", "pet-mad-s-v1.6.0", "downloaded"):
        assert part in text


def test_list_as_json(root, run):
    records = json.loads(run("list", "--json"))
    assert [r["name"] for r in records["energy"]] == ["water-v1", "salt-v1"]
    assert records["energy"][0]["force_mae_meV_A"] == 60
    assert records["property"] == records["generator"] == []
    assert "published" in json.loads(run("list", "--json", "--all"))


def test_the_list_of_the_package_fits_100_columns(monkeypatch, run):
    monkeypatch.setenv("COLUMNS", "100")
    kinds = [entry.name for kind in ("energy", "property", "generator")
             for entry in list_potentials(kind)]  # fmt: skip
    for words in (("list",), ("list", "--all")):
        text = run(*words)
        assert all(len(line) <= 100 for line in text.splitlines())
        assert all(f" {name} " in text for name in kinds)
    assert all(f" {model.name} " in text for model in PUBLISHED)
    assert "87 elements" in text


@pytest.mark.parametrize("kind", ["property", "generator"])
def test_models_of_all_kinds_have_a_card_and_a_path(kind, run):
    for entry in list_potentials(kind):
        assert entry.name in run("show", entry.name)
        assert run("path", entry.name) == f"{entry.folder}\n"


def test_list_does_without_a_card(root, run):
    (root / "water-v1" / "README.md").write_text("nothing")
    assert "water-v1" in run("list")


def test_an_empty_index_is_no_error(root, run):
    (root / "index.toml").write_text("schema = 1\n")
    assert "no potential ships" in run("list")


def test_show_prints_the_card(root, run):
    assert "Random weights." in run("show", "water")


def test_path_prints_the_folder_alone(root, run):
    assert run("path", "water") == f"{root / 'water-v1'}\n"


def test_record_writes_what_verify_compares(root, run, tmp_path):
    folder = root / "water-v1"
    (folder / EXPECTED).unlink()
    frames = [liquid(1, length=4.0), liquid(1, seed=1, length=5.0)]
    frames[1].info["name"] = "dilute"
    write(tmp_path / "frames.extxyz", frames)
    assert "2 structure(s)" in run("record", str(folder), str(tmp_path / "frames.extxyz"))
    assert "everything is as recorded" in run("verify", "water-v1")
    recorded = json.loads((folder / EXPECTED).read_text())
    assert [s["name"] for s in recorded["structures"]] == ["0-H2O", "dilute"]
    recorded["structures"][1]["energy"] += 1.0
    (folder / EXPECTED).write_text(json.dumps(recorded))
    with pytest.raises(IntegrityError, match="the energy of 'dilute'"):
        run("verify", "water-v1")


def test_record_asks_for_structures_with_names_of_their_own(root, run, tmp_path):
    frames = [liquid(1, length=4.0), liquid(1, seed=1, length=5.0)]
    for atoms in frames:
        atoms.info["name"] = "same"
    write(tmp_path / "frames.extxyz", frames)
    with pytest.raises(ValueError, match=r"2 structure\(s\) with 1 name"):
        run("record", str(root / "water-v1"), str(tmp_path / "frames.extxyz"))


def test_verify_says_what_it_compared(root, run):
    output = run("verify", "water-v1")
    assert f"{WEIGHTS}: SHA-256 as recorded" in output
    assert output.count("forces") == 2
    assert "float64" in output
    assert "water-v1: everything is as recorded" in output


def test_verify_fails_for_changed_weights(root, run):
    flip_a_bit(root / "water-v1" / WEIGHTS)
    with pytest.raises(IntegrityError, match="must have the SHA-256"):
        run("verify", "water-v1")


def test_an_unknown_name_lists_the_known_ones(root, run):
    for verb in ("show", "path", "verify"):
        with pytest.raises(PotentialNotFoundError, match="shipped: water-v1, salt-v1"):
            run(verb, "ice")
