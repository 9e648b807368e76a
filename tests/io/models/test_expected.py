"""Recorded results: reproduced by the same model, and by no other."""

import json

import ase.build
import pytest
import torch
from calculators.small_potentials import liquid, small_pet

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.models.expected import EXPECTED, compare_expected, read_expected, write_expected
from pet_calc.io.models.weights import copy_model

STRUCTURES = {"liquid": liquid(), "molecule": ase.build.molecule("H2O"), "sheared": liquid(1)}
STRUCTURES["sheared"].set_cell([[3.2, 0, 0], [0.4, 3, 0], [0, -0.3, 3.5]])


@pytest.fixture
def folder(tmp_path):
    write_expected(tmp_path, small_pet(dtype=torch.float32), STRUCTURES)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_model_reproduces_its_results(folder, dtype):
    model = copy_model(small_pet(dtype=torch.float32), dtype)
    deviations = compare_expected(folder, model)
    # the molecule has no stress
    assert len(deviations) == 8
    assert all(d.within for d in deviations), deviations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quantity", ["energy", "forces", "stress"])
def test_each_quantity_can_fail(folder, dtype, quantity):
    content = json.loads((folder / EXPECTED).read_text())
    entry = content["structures"][0]
    limit = content["tolerances"][str(dtype).removeprefix("torch.")][quantity]
    if quantity == "energy":
        entry["energy"] += 2 * limit * len(entry["numbers"])
    elif quantity == "forces":
        entry["forces"][3][1] += 2.5 * limit
    else:
        entry["stress"][5] += 2.5 * limit
    (folder / EXPECTED).write_text(json.dumps(content))
    deviations = compare_expected(folder, copy_model(small_pet(dtype=torch.float32), dtype))
    assert [(d.structure, d.quantity) for d in deviations if not d.within] == [("liquid", quantity)]


def test_weights_that_are_not_numbers_do_not_pass(folder):
    model = small_pet()
    with torch.no_grad():
        model.node_head[0].bias.fill_(torch.nan)
    assert not any(d.within for d in compare_expected(folder, model) if d.quantity == "energy")


def test_another_model_does_not_pass(folder):
    assert not any(d.within for d in compare_expected(folder, small_pet(seed=1)))


def test_missing_and_foreign_files_are_refused(folder):
    (folder / EXPECTED).write_text('{"format": 2}')
    with pytest.raises(CheckpointError, match="must be of format 1, got 2"):
        read_expected(folder)
    (folder / EXPECTED).write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_expected(folder)
    (folder / EXPECTED).unlink()
    with pytest.raises(PotentialNotFoundError, match="to compare with"):
        read_expected(folder)
