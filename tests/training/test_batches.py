"""Gradients that add up over several batches."""

import numpy as np
import pytest
import torch

from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.losses import LabelCounts
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all


def steps(config_table, data_folder, *, batch_size, accumulate, seed=3):
    loss = {"energy": 1.0, "forces": 1.0, "stress": 10.0}
    stage = {"steps": 4, "learning_rate": 1e-2, "warmup_steps": 0, "loss": loss}
    config = TrainConfig.from_dict(
        config_table
        | {
            "dtype": "float64",
            "seed": seed,
            "optimizer": {"name": "adam", "gradient_clip": 0.1},
            "stages": [stage | {"batch_size": batch_size, "accumulate": accumulate}],
        }
    )
    data = load_data(config, data_folder)
    frames = prepare_all(data.train, config)
    run = Run.start(config, data.train, frames)
    losses = [run.advance(frames)[0] for _ in range(3)]
    weights = torch.cat([p.detach().reshape(-1) for p in run.model.parameters()])
    return losses, weights, frames, run.forces_rmse


@pytest.mark.parametrize("options", [{}, {"direct_forces": True, "direct_stress": True}])
def test_accumulated_gradients_are_those_of_one_batch(config_table, data_folder, options):
    config_table["model"] |= options
    whole = steps(config_table, data_folder, batch_size=4, accumulate=1)
    parts = steps(config_table, data_folder, batch_size=1, accumulate=4)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-10)
    torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-10)
    assert parts[3] == pytest.approx(whole[3], rel=1e-10)
    # controls: other data move the weights elsewhere, as do averages over each batch alone
    other = steps(config_table, data_folder, batch_size=4, accumulate=1, seed=4)
    assert (other[1] - whole[1]).abs().max() > 1e-3


def test_averages_over_each_batch_alone_would_be_others(config_table, data_folder, monkeypatch):
    whole = steps(config_table, data_folder, batch_size=4, accumulate=1)
    single = LabelCounts.of

    def naive(batches):
        found = single(batches)
        return LabelCounts(4, 4 * 8 * 3, found.stress)  # as if all frames had eight atoms

    monkeypatch.setattr(LabelCounts, "of", naive)
    parts = steps(config_table, data_folder, batch_size=1, accumulate=4)
    assert abs(parts[0][0] / whole[0][0] - 1) > 1e-4


@pytest.mark.parametrize(
    ("table", "message"),
    [({"accumulate": 0}, "at least 1"), ({"batch_size": 0}, "at least 1")],
)
def test_empty_steps_are_refused(config_table, table, message):
    config_table["stages"][0] |= table
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(config_table)


def test_unknown_precision_is_refused(config_table):
    with pytest.raises(ValueError, match="`dtype` must be"):
        TrainConfig.from_dict(config_table | {"dtype": "float16"})


def test_weights_trained_in_double_precision_are_stored_so(tmp_path, data_folder, config_table):
    from safetensors.torch import load_file

    config_table |= {"dtype": "float64", "optimizer": {"name": "adam"}}
    config_table["stages"] = [{"steps": 2, "warmup_steps": 0}]
    config = TrainConfig.from_dict(config_table)
    train(config, tmp_path, load_data(config, data_folder))
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    weight = stored["node_head.0.weight"]
    assert weight.dtype == torch.float64
    assert not torch.equal(weight.float().double(), weight)
