"""The training loop: it learns, resumes exactly, and refuses what makes no sense."""

import csv
import json

import numpy as np
import pytest
import torch

from pet_calc.errors import CheckpointError, DatasetError, OutputError, SimulationError
from pet_calc.io.models.weights import load_model
from pet_calc.training.core.checkpoint import load_checkpoint, save_checkpoint
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.evaluate import evaluate_frames
from pet_calc.training.potentials.loop import CHECKPOINT, load_data, train
from pet_calc.training.potentials.run import Run


def read_log(folder):
    with (folder / "log.csv").open(newline="") as handle:
        return list(csv.reader(handle))


def checkpoint_tensors(folder):
    flat = {}

    def visit(prefix, value):
        if isinstance(value, torch.Tensor):
            flat[prefix] = value
        elif isinstance(value, dict):
            for k, v in value.items():
                visit(f"{prefix}/{k}", v)
        elif isinstance(value, list | tuple):
            for k, v in enumerate(value):
                visit(f"{prefix}/{k}", v)

    visit("", load_checkpoint(folder / CHECKPOINT))
    return flat


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_resumed_run_equals_uninterrupted_one_bit_for_bit(
    tmp_path, data_folder, config_table, optimizer
):
    config_table["optimizer"]["name"] = optimizer
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    whole = train(config, tmp_path / "whole", data)
    for stop in (7, 30, 33):  # within a stage, on its boundary, and in the next one
        assert train(config, tmp_path / "split", data, stop_after=stop) is None
    split = train(config, tmp_path / "split", data)
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "split")
    assert whole == split
    a, b = checkpoint_tensors(tmp_path / "whole"), checkpoint_tensors(tmp_path / "split")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_rows_written_after_the_checkpoint_are_dropped_on_resume(
    tmp_path, data_folder, config_table
):
    # a run killed between a validation and the next checkpoint
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    train(config, tmp_path / "a", data, stop_after=15)
    saved = (tmp_path / "a" / CHECKPOINT).read_bytes()
    train(config, tmp_path / "a", data, stop_after=25)
    (tmp_path / "a" / CHECKPOINT).write_bytes(saved)
    train(config, tmp_path / "a", data)
    train(config, tmp_path / "b", data)
    assert read_log(tmp_path / "a") == read_log(tmp_path / "b")


def test_other_seed_gives_another_run(tmp_path, data_folder, config_table):
    # control of the equality above: it can fail
    config = TrainConfig.from_dict(config_table)
    other = TrainConfig.from_dict(config_table | {"seed": 4})
    data = load_data(config, data_folder)
    train(config, tmp_path / "a", data, stop_after=10)
    train(other, tmp_path / "b", data, stop_after=10)
    assert read_log(tmp_path / "a") != read_log(tmp_path / "b")


def test_training_learns_and_saves_what_it_reports(tmp_path, data_folder, config_table):
    config_table["stages"][0]["steps"] = 150
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    table = train(config, tmp_path / "run", data)
    spread = 1e3 * np.concatenate([f.forces.reshape(-1) for f in data.test]).std()
    assert table["test"].forces.rmse < 0.5 * spread
    assert set(table["test"].forces_by_element) == {"Na", "Cl"}
    model = load_model(tmp_path / "run" / "model")
    again = evaluate_frames(model, [prepare(f, model.cutoff) for f in data.test])
    assert again.forces.rmse == pytest.approx(table["test"].forces.rmse, rel=1e-6)
    stored = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert stored["test"]["forces"]["rmse"] == table["test"].forces.rmse


def test_training_leaves_global_random_state_alone(tmp_path, data_folder, config_table):
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(config, tmp_path / "run", data, stop_after=3)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_changed_configuration_is_refused(tmp_path, data_folder, config_table):
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    train(config, tmp_path / "run", data, stop_after=3)
    changed = TrainConfig.from_dict(config_table | {"seed": 5})
    with pytest.raises(CheckpointError, match=r"different: \['seed'\]"):
        train(changed, tmp_path / "run", data)


def test_damaged_checkpoint_is_refused(tmp_path, data_folder, config_table):
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(config, tmp_path / "run", data)


def test_unwritable_output_is_refused_before_work(tmp_path, data_folder, config_table):
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be writable"):
        train(config, tmp_path / "file" / "run", data)


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_loss_on_absent_label_is_refused(tmp_path, data_folder, config_table, label):
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = ase.io.read(data_folder / "train.extxyz", ":")
    for atoms in frames:
        kept = {k: v for k, v in atoms.calc.results.items() if k != label}
        atoms.calc = SinglePointCalculator(atoms, **kept)
    ase.io.write(tmp_path / "train.extxyz", frames)
    config_table["data"] = {"train": ["train.extxyz"], "validation_frames": 2}
    with pytest.raises(DatasetError, match=f"the loss asks for {label}"):
        load_data(TrainConfig.from_dict(config_table), tmp_path)


def test_files_without_any_label_are_refused(tmp_path, data_folder, config_table):
    import ase.io

    frames = ase.io.read(data_folder / "train.extxyz", ":")
    for atoms in frames:
        atoms.calc = None
    ase.io.write(tmp_path / "train.extxyz", frames)
    config_table["data"] = {"train": ["train.extxyz"], "validation_frames": 2}
    with pytest.raises(DatasetError, match="hold no label"):
        load_data(TrainConfig.from_dict(config_table), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no data file"),
        ("", "holds no structure|could not be read"),
        ("garbage", "could not"),
    ],
)
def test_bad_training_file_is_refused(tmp_path, config_table, content, message):
    if content is not None:
        (tmp_path / "train.extxyz").write_text(content)
    with pytest.raises(DatasetError, match=message):
        load_data(TrainConfig.from_dict(config_table), tmp_path)


def test_checkpoint_round_trip_keeps_types(tmp_path):
    state = {
        "a": torch.arange(3),
        "b": [torch.ones(2, dtype=torch.float64), [], None],
        "c": {0: {"x": (1, 2.5)}, "s": "text", "t": True},
        "inf": float("inf"),
    }
    save_checkpoint(tmp_path / "c.safetensors", state)
    back = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(back["a"], state["a"])
    assert back["b"][0].dtype == torch.float64
    assert back["b"][1:] == [[], None]
    assert back["c"] == {0: {"x": (1, 2.5)}, "s": "text", "t": True}
    assert back["inf"] == float("inf")


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(
    tmp_path, data_folder, config_table, monkeypatch
):
    backward = Run.backward

    def spoilt(self, *arguments):
        found = backward(self, *arguments)
        if self.step == 7:
            next(p for p in self.model.parameters() if p.grad is not None).grad[0] = torch.inf
        return found

    monkeypatch.setattr(Run, "backward", spoilt)
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    with pytest.raises(SimulationError, match=r"gradient of the loss is .* at step 7"):
        train(config, tmp_path / "run", data, checkpoint_seconds=0.0)
    tensors = checkpoint_tensors(tmp_path / "run")
    weights = [t for t in tensors.values() if t.is_floating_point() and t.numel() > 1]
    assert weights
    assert all(bool(torch.isfinite(t).all()) for t in weights)


def test_the_log_of_another_run_is_left_alone(tmp_path, data_folder, config_table):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("time_fs,temperature_K\n0.5,300\n")
    config = TrainConfig.from_dict(config_table)
    with pytest.raises(OutputError, match="choose another folder"):
        train(config, tmp_path / "run", load_data(config, data_folder))
    assert (tmp_path / "run" / "log.csv").read_text() == "time_fs,temperature_K\n0.5,300\n"
