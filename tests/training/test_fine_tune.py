"""Fine-tuning starts from another potential's weights; repeated files weigh more in an epoch."""

import numpy as np
import pytest
import torch

from pet_calc.io.models.weights import load_model
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.loop import load_data, train


def tuned(config_table, parent, method="full", rate=1e-12):
    stage = {"steps": 4, "learning_rate": rate, "warmup_steps": 0,
             "loss": {"energy": 1.0, "forces": 1.0}}  # fmt: skip
    return TrainConfig.from_dict(
        config_table | {"fine_tune": {"from": str(parent), "method": method}, "stages": [stage]}
    )


def weights(folder):
    return dict(load_model(folder).named_parameters())


def test_it_starts_from_the_parents_weights(tmp_path, data_folder, config_table, parent):
    config = tuned(config_table, parent)
    train(config, tmp_path / "child", load_data(config, data_folder))
    old, new = weights(parent), weights(tmp_path / "child" / "model")
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in old)
    # control: at a real learning rate they move
    config = tuned(config_table, parent, rate=1e-2)
    train(config, tmp_path / "moved", load_data(config, data_folder))
    moved = weights(tmp_path / "moved" / "model")
    assert not any(torch.allclose(old[k], moved[k], atol=1e-6) for k in old if "weight" in k)


def test_heads_alone_leave_the_network_as_it_was(tmp_path, data_folder, config_table, parent):
    config = tuned(config_table, parent, "heads", rate=1e-2)
    train(config, tmp_path / "child", load_data(config, data_folder))
    old, new = weights(parent), weights(tmp_path / "child" / "model")
    changed = {k for k in old if not torch.equal(old[k], new[k])}
    model = load_model(parent)
    last = {id(p) for layer in model.last_layers for p in layer.parameters()}
    assert changed == {k for k, p in model.named_parameters() if id(p) in last}


def test_energies_of_another_zero_are_aligned(tmp_path, data_folder, config_table, parent):
    config = tuned(config_table, parent)
    data = load_data(config, data_folder)
    for frame in [*data.train, *data.validation, *data.test]:
        shift = 7.0 * np.sum(frame.atoms.numbers == 11) - 2.0 * np.sum(frame.atoms.numbers == 17)
        object.__setattr__(frame, "energy", frame.energy + shift)
    table = train(config, tmp_path / "child", data)
    unshifted = load_data(config, data_folder)
    before = train(config, tmp_path / "same", unshifted)
    assert table["test"].energy.mae == pytest.approx(before["test"].energy.mae, rel=1e-3)


def test_a_run_goes_on_bit_for_bit(tmp_path, data_folder, config_table, parent):
    config = tuned(config_table, parent, "heads", rate=1e-2)
    data = load_data(config, data_folder)
    whole = train(config, tmp_path / "whole", data)
    assert train(config, tmp_path / "split", data, stop_after=2) is None
    assert train(config, tmp_path / "split", data) == whole


def test_another_network_is_refused(tmp_path, data_folder, config_table, parent):
    config = tuned(config_table | {"model": config_table["model"] | {"d_node": 16}}, parent)
    with pytest.raises(ValueError, match="copy it from"):
        train(config, tmp_path / "child", load_data(config, data_folder))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fine_tune": {}}, "needs `from`"),
        ({"fine_tune": {"from": "x", "rank": 4}}, r"\['rank'\] in \[fine_tune\] need method"),
        ({"fine_tune": {"from": "x", "method": "lora", "rank": 0}}, "rank` must be at least 1"),
        ({"fine_tune": {"from": "x", "replay_fraction": 0.5}}, "need replay"),
        ({"fine_tune": {"from": "x", "replay": ["a"], "replay_fraction": 1.0}}, "between 0 and 1"),
        ({"fine_tune": {"from": "x", "method": "all"}}, "'full', 'heads' or 'lora'"),
        ({"data": {"train": ["a"], "repeat": [2]}}, "unknown option"),
        ({"data": {"sets": [{"file": "a", "repeat": 0}]}}, "at least 1"),
    ],
)
def test_options_without_meaning_are_refused(config_table, table, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(config_table | table)


def test_repeated_files_are_seen_more_often_and_never_in_validation(data_folder, config_table):
    often = [{"file": "test.extxyz", "repeat": 3}]
    data = {"train": ["train.extxyz"], "sets": often, "validation_frames": 4}
    found = load_data(TrainConfig.from_dict(config_table | {"data": data}), data_folder)
    assert len(found.train) == 22
    epoch = found.order.frames
    small = [k for k in range(22) if epoch.count(k) == 3]
    assert len(epoch) == 22 + 2 * len(small)
    assert found.census["train"].n_frames == 26
    held = [prepare(f, 4.0).energy for f in found.validation]
    kept = [prepare(found.train[k], 4.0).energy for k in small]
    assert not any(torch.equal(a, b) for a in held for b in kept)
