"""What all trainings share."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from pet_calc.errors import CheckpointError, OutputError, SimulationError
from pet_calc.training.core.checkpoint import CheckpointTimer, resumed_state, save_checkpoint
from pet_calc.training.core.config_reader import read_toml
from pet_calc.training.core.log import append_log, truncate_log
from pet_calc.training.core.optimizers import take_step
from pet_calc.training.core.schedule import inverse_square_root, one_cycle, warmup_cosine
from pet_calc.training.core.weight_average import start_average, update_exponential, update_mean


def test_rates_rise_and_fall_where_they_should():
    rates = [warmup_cosine(k, steps=20, warmup=4, peak=2.0, final=0.5) for k in range(21)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[12] == pytest.approx(1.25)  # halfway down
    assert rates[20] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert one_cycle(0.0, total=10, peak=1.0) == pytest.approx(1 / 25)
    assert one_cycle(3.0, total=10, peak=1.0) == pytest.approx(1.0)
    assert one_cycle(10.0, total=10, peak=1.0) == pytest.approx(1e-4)
    assert inverse_square_root(0, peak=3.0) == 3.0
    assert inverse_square_root(12000, peak=3.0) == pytest.approx(1.5)


def test_averages_of_weights():
    model = nn.Linear(1, 1, bias=False)
    values = [1.0, 2.0, 6.0]
    mean, moving, expected = start_average(model), start_average(model), None
    for k, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        update_mean(mean, model, k + 1)
        if k == 0:
            moving, expected = start_average(model), value
            continue
        update_exponential(moving, model, k, 0.15)
        decay = min(0.15, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * value
    assert mean["weight"].item() == pytest.approx(3.0)
    assert moving["weight"].item() == pytest.approx(expected)


def test_a_step_needs_a_finite_loss_and_gradient():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    before = model.weight.detach().clone()

    def step(loss, gradient):
        for p in model.parameters():
            p.grad = torch.full_like(p, gradient)
        take_step(optimizer, model.parameters(), loss, rate=0.5, clip=1.0, when="at step 7")

    with pytest.raises(SimulationError, match="training loss is nan at step 7"):
        step(math.nan, 1.0)
    with pytest.raises(SimulationError, match="gradient of the loss is nan at step 7"):
        step(1.0, math.nan)
    assert torch.equal(model.weight, before)
    step(1.0, 10.0)  # clipped to a norm of 1 over three parameters
    assert torch.allclose(model.weight, before - 0.5 / 3**0.5)


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.csv"
    for step in (5, 10, 15):
        append_log(path, {"step": step, "loss": 0.5, "error": 1.0})
    truncate_log(path, ("step", "loss"), 10)
    assert path.read_text().split() == ["step,loss,error", "5,0.5,1.0", "10,0.5,1.0"]
    with pytest.raises(OutputError, match="must be the log of this training"):
        truncate_log(path, ("epoch", "loss"), 10)


def test_a_run_goes_on_from_its_own_checkpoint_alone(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    config = {"steps": 3, "files": ("a",), "last": {"members": 2}}
    assert resumed_state(path, config) is None
    save_checkpoint(path, {"config": config, "weights": torch.ones(2)})
    state = resumed_state(path, config)
    assert torch.equal(state["weights"], torch.ones(2))
    assert resumed_state(path, config | {"last": None}, changeable=("last",))
    with pytest.raises(CheckpointError, match=r"different: \['last'\]"):
        resumed_state(path, config | {"last": None})


def test_times_of_checkpoints():
    assert not CheckpointTimer(1e9).due()
    assert CheckpointTimer(0.0).due()
    with pytest.raises(ValueError, match="checkpoint_seconds"):
        CheckpointTimer(-1.0)


def test_files_that_are_no_toml(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_toml(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("[stages")
    with pytest.raises(ValueError, match="not a readable TOML file"):
        read_toml(tmp_path / "bad.toml")
