"""A card's errors are measured again from the shipped files, and a wrong one is noticed."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from pet_calc.cli.models import models_app
from pet_calc.errors import CheckpointError, DatasetError, IntegrityError
from pet_calc.io.models.weights import save_model
from pet_calc.models.pet import PET
from pet_calc.pretrained import load
from pet_calc.training.potentials.card import NUMBERS, measure, measure_card
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import load_data, train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, data_folder):
    config = TrainConfig.from_dict(
        {
            "name": "toy",
            "model": {"elements": [11, 17], "cutoff": 4.0, "d_pet": 8, "d_node": 8, "d_head": 8,
                      "d_feedforward": 8, "num_heads": 1, "num_gnn_layers": 1},
            "data": {"train": ["train.extxyz"], "validation_frames": 2},
            "stages": [{"steps": 2, "learning_rate": 1e-3}],
        }
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    train(config, folder, load_data(config, data_folder))
    return folder / "model"


@pytest.fixture
def with_card(run_folder, data_folder):
    """Write a card with the measured errors, one of them scaled."""

    def write(scale=1.0, **more):
        evaluation = measure(load(run_folder), ["test.extxyz"], data_folder)
        numbers = {k: float(f"{number(evaluation):.4g}") for k, number in NUMBERS.items()}
        numbers["force_mae_meV_A"] *= scale
        metrics = {"test": {"files": ["test.extxyz"]} | numbers | more}
        (run_folder / "README.md").write_text(f"---\nmetrics: {json.dumps(metrics)}\n---\nText.\n")
        return str(run_folder)

    return write


def test_measured_errors_are_those_of_the_card(with_card, data_folder):
    result = CliRunner().invoke(
        models_app, ["verify", with_card(), "--data", str(data_folder)], env={"COLUMNS": "200"}
    )
    assert result.exception is None
    assert "stress_mae_GPa" in result.output
    assert "differs" not in result.output


def test_an_error_better_than_measured_is_refused(with_card, data_folder):
    arguments = ["verify", with_card(0.98), "--data", str(data_folder)]
    result = CliRunner().invoke(models_app, arguments)
    assert isinstance(result.exception, IntegrityError)
    assert "force_mae_meV_A of test" in str(result.exception)


def test_a_file_of_another_level_is_read_through_its_head(tmp_path, run_folder, data_folder):
    potential = load(run_folder)
    config = replace(potential.model.config, energy_heads=("energy", "other"))
    model = PET(config, dtype=torch.float64)
    model.load_state_dict(potential.model.double().state_dict(), strict=False)
    with torch.no_grad():
        model.variant_reference_energies += 1.0  # eV
    save_model(tmp_path / "model", model)
    two = load(tmp_path / "model", dtype="float64")
    other = {"file": "test.extxyz", "level": "other"}
    separate = [
        measure(replace(two, model=two.model.with_energy_head(head)), ["test.extxyz"], data_folder)
        for head in ("energy", "other")
    ]
    assert separate[0].energy.mae != pytest.approx(separate[1].energy.mae, rel=0.01)
    assert measure(two, [other], data_folder).energy.mae == pytest.approx(separate[1].energy.mae)
    both = measure(two, ["test.extxyz", other], data_folder).energy.mae
    assert both == pytest.approx(0.5 * sum(e.energy.mae for e in separate))
    with pytest.raises(CheckpointError, match="energy heads"):
        measure(potential, [other], data_folder)


def test_cards_without_files_and_unknown_numbers_are_refused(with_card, data_folder, tmp_path):
    with pytest.raises(CheckpointError, match="force_mae_kcal"):
        measure_card(load(with_card(force_mae_kcal=1.0)), data_folder)
    with pytest.raises(DatasetError, match="no data file"):
        measure_card(load(with_card()), tmp_path)
    folder = with_card()
    (tmp_path.parent / "x").mkdir(exist_ok=True)
    from pathlib import Path

    (Path(folder) / "README.md").write_text("---\nname: toy\n---\nText.\n")
    with pytest.raises(CheckpointError, match="names no files"):
        measure_card(load(folder), data_folder)
