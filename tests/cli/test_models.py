"""``pet-calc models``: list, show, path, verify."""

import pytest
from calculators.small_potentials import flip_a_bit, publish
from typer.testing import CliRunner

from pet_calc.cli.models import models_app
from pet_calc.errors import IntegrityError, PotentialNotFoundError
from pet_calc.io.models.files import WEIGHTS


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
    line = next(line for line in run("list").splitlines() if "water-v1" in line)
    for part in ("H O", "random", "MB", "0.5 meV/atom, 60 meV/Å", "potential number 0"):
        assert part in line
    assert "salt-v1" in run("list")


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
