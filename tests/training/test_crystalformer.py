"""Crystalformer is trained by the same loop as PET: it learns, resumes exactly, is stored."""

import csv

import pytest
import torch

from pet_calc.io.models.weights import load_model
from pet_calc.models.crystalformer import Crystalformer
from pet_calc.models.pet import PETConfig
from pet_calc.training.core.checkpoint import load_checkpoint
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.evaluate import evaluate_frames
from pet_calc.training.potentials.loop import CHECKPOINT, load_data, train


@pytest.fixture
def table(config_table):
    """A small Crystalformer instead of the small PET."""
    model = {
        "architecture": "crystalformer", "elements": [11, 17], "cutoff": 4.0, "cutoff_width": 2.0,
        "d_model": 16, "num_heads": 2, "num_layers": 2, "d_feedforward": 16, "d_head": 16,
        "gaussian_width": 1.0, "gaussian_width_max": 2.0, "num_radial": 12, "radial_max": 4.0,
        "short_range_repulsion": True,
    }  # fmt: skip
    config_table["stages"][0] |= {"steps": 60, "learning_rate": 2e-2}
    return config_table | {"model": model, "augment": False}


@pytest.mark.parametrize(
    "options",
    [
        {"domain": "real"},
        {"domain": "multihead"},
        {"num_angular": 4, "frames": {"taper": 0.8, "beta": 2.0, "num_prunings": 0}},
    ],
    ids=["real", "multihead", "frames"],
)
def test_it_learns_and_resumes_bit_for_bit(tmp_path, data_folder, table, options):
    table["model"] |= options
    config = TrainConfig.from_dict(table)
    data = load_data(config, data_folder)
    whole = train(config, tmp_path / "whole", data)
    for stop in (7, 60):
        assert train(config, tmp_path / "split", data, stop_after=stop) is None
    assert train(config, tmp_path / "split", data) == whole
    a, b = (load_checkpoint(tmp_path / run / CHECKPOINT) for run in ("whole", "split"))
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert a["config"]["model"]["architecture"] == "crystalformer"

    with (tmp_path / "whole/log.csv").open(newline="") as handle:
        first, *_, last = csv.DictReader(handle)
    assert float(last["validation_forces_rmse"]) < 0.9 * float(first["validation_forces_rmse"])

    model = load_model(tmp_path / "whole/model", torch.float32)
    assert isinstance(model, Crystalformer)
    assert model.config == config.model
    test = [prepare(f, model.cutoff) for f in data.test]
    assert evaluate_frames(model, test).energy.mae == pytest.approx(whole["test"].energy.mae)


def test_widths_and_repulsion_come_from_the_data(tmp_path, data_folder, table):
    config = TrainConfig.from_dict(table)
    train(config, tmp_path / "run", load_data(config, data_folder), stop_after=1)
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT)["model"]
    scale, shift = state["blocks.1.attention.gauss_scale"]
    assert scale > 0
    assert (scale, shift) != (1.0, 0.0)
    assert 1.5 < state["repulsion.onset"].min() < state["repulsion.onset"].max() < 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "matformer"}, "pet, crystalformer"),
        ({"d_pet": 8}, "unknown Crystalformer option"),
        ({"readout": "mean", "targets": ["gap"]}, "only potentials are trained"),
    ],
)
def test_bad_architectures_are_refused(table, change, message):
    table["model"] |= change
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(table)


def test_files_of_pet_name_no_architecture(config_table):
    config = TrainConfig.from_dict(config_table)
    assert isinstance(config.model, PETConfig)
    assert "architecture" not in config.to_dict()["model"]
    config_table["model"]["architecture"] = "pet"
    assert TrainConfig.from_dict(config_table) == config
