"""Two processes share a step, and take the same one as a single process with both batches."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pet_calc
from pet_calc.errors import CheckpointError
from pet_calc.training.core.parallel import ALONE, Team
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.evaluate import evaluate_frames
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.splits import prepare_all

SCRIPT = """
import json, sys
from pathlib import Path
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import load_data, train

config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
data = load_data(config, Path(sys.argv[3]))
assert train(config, Path(sys.argv[2]), data, stop_after=2) is None  # within a stage
train(config, Path(sys.argv[2]), data)  # goes on
"""


def launch(folder, config, data_folder):
    """`train` in two processes that torchrun starts."""
    import json

    (folder / "script.py").write_text(SCRIPT)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    arguments = (folder / "config.json", folder / "run", data_folder)
    root = str(Path(pet_calc.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(folder / "script.py"), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


def configured(config_table, batch_size):
    config_table |= {"dtype": "float64", "optimizer": {"name": "adam"}, "validation_interval": 2}
    loss = {"energy": 1.0, "forces": 1.0, "stress": 10.0}
    stages = [
        {"steps": 3, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": batch_size,
         "accumulate": 2, "loss": loss},
        {"steps": 2, "learning_rate": 5e-3, "warmup_steps": 0, "batch_size": batch_size},
    ]  # fmt: skip
    return TrainConfig.from_dict(config_table | {"stages": stages})


def numbers(folder):
    with (folder / "log.csv").open(newline="") as handle:
        return np.array([[float(x) for x in row] for row in list(csv.reader(handle))[1:]])


def test_two_processes_take_the_steps_of_one(tmp_path, data_folder, config_table):
    data = load_data(configured(config_table, 1), data_folder)
    one, half = configured(config_table, 4), configured(config_table, 2)
    train(one, tmp_path / "one", data)
    train(half, tmp_path / "half", data)
    two = launch(tmp_path, half, data_folder)
    np.testing.assert_allclose(numbers(two), numbers(tmp_path / "one"), rtol=1e-9)
    weights = {
        k: load_file(folder / "model" / "weights.safetensors")
        for k, folder in (("one", tmp_path / "one"), ("two", two), ("half", tmp_path / "half"))
    }
    for name, expected in weights["one"].items():
        torch.testing.assert_close(weights["two"][name], expected, rtol=1e-9, atol=1e-11)
    # control: with half of the frames in a step the weights are others
    assert any(
        not torch.allclose(weights["half"][n], w, rtol=1e-4) for n, w in weights["one"].items()
    )
    assert sorted(f.name for f in two.iterdir()) == sorted(
        f.name for f in (tmp_path / "one").iterdir()
    )
    with pytest.raises(CheckpointError, match="as many processes as it began with"):
        train(half, two, data)


def test_shares_cover_everything_once():
    teams = [Team(k, 3) for k in range(3)]
    assert sorted(x for t in teams for x in t.share(range(10))) == list(range(10))
    assert list(ALONE.share(range(4))) == [0, 1, 2, 3]
    assert ALONE.leads
    assert not teams[1].leads


def test_errors_of_shares_add_up(data_folder, config_table, monkeypatch):
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    from pet_calc.training.potentials.initial_model import starting_model

    model = starting_model(config, data.train, prepare_all(data.train, config)).eval()
    frames = prepare_all(data.test, config)
    sums = []
    monkeypatch.setattr(Team, "total", lambda self, x: sums.append(x) or x)
    whole = evaluate_frames(model, frames)
    for k in range(2):
        evaluate_frames(model, frames, Team(k, 2))
    torch.testing.assert_close(
        sums[1] + sums[2], sums[0], rtol=1e-6, atol=0
    )  # float32, other batches
    assert not torch.allclose(sums[1], sums[0])
    assert whole.forces.count == int(sums[0][1, 2])
